"""Measure what a linear layer can read from the features of the frozen tiny CLIP.

Methods read different features, and some read the CLS tokens alone. An attribute that is missing from these features is
unavailable to such a method because of the backbone, and not because of the method.

Shapes: N scenes, J tokens (CLS first), C width of a feature, V values of an attribute.
"""

from random import Random

import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F

from harness.backbone.vision_tower import VisionTower
from harness.data.mini.world import ATTRIBUTES, NUMBERS, VOCABULARY, Scene, sample_scene
from harness.pretrain.clip import centre_patch, pictures

BLOCKS = (2, 4, 6, 8)
UNSEEN = 1_000_004  # seed of the scenes, which training does not use
CHUNK = 200  # images per forward pass


@torch.no_grad()
def probe_accuracy(
    model: CLIP, fit: int = 2000, held_out: int = 1000, penalty: float = 0.1
) -> dict[str, dict[str, list[float]]]:
    """Return how accurately ridge regression predicts the content of a scene from CLIP's features.

    The regression predicts the one-hot value of each attribute of the only thing in a scene. From other scenes, of one
    to four things, it predicts their number, `count`.

    Args:
        model: the tiny CLIP, in float32.
        fit: number of scenes that the regression is fitted to.
        held_out: number of other scenes that the accuracy is measured on.
        penalty: λ in `‖X·W − Y‖² + λ·‖W‖²`, where X is standardised and divided by the square root of its width.

    Returns:
        for each input, attribute -> accuracy after each block in `BLOCKS`. The inputs are `cls` (the CLS token),
        `patches` (all patches, concatenated) and `patch` (the one patch at the centre of the thing), which has no
        `count`.
    """
    rng = Random(UNSEEN)
    single = [sample_scene(rng, 1) for _ in range(fit + held_out)]
    several = [sample_scene(rng, rng.randint(1, len(NUMBERS))) for _ in range(fit + held_out)]
    attributes = {
        name: torch.tensor([VOCABULARY[name].index(getattr(scene.things[0], name)) for scene in single])
        for name in ATTRIBUTES
    }
    counts = {"count": torch.tensor([NUMBERS.index(scene.count) for scene in several])}
    features = _features(model, single)
    centres = torch.arange(len(single)), 1 + torch.tensor([centre_patch(scene.things[0]) for scene in single])
    found = {name: _accuracies(blocks, attributes, fit, penalty) for name, blocks in _inputs(features).items()}
    found["patch"] = _accuracies([feature_NJC[centres] for feature_NJC in features], attributes, fit, penalty)
    for name, blocks in _inputs(_features(model, several)).items():
        found[name] |= _accuracies(blocks, counts, fit, penalty)
    return found


def _features(model: CLIP, scenes: list[Scene]) -> list[Tensor]:
    """Return the hidden states of the scenes after each block in `BLOCKS`, each `N×J×C`."""
    tower = VisionTower(model.visual)
    chunks = [
        tower.features(pictures(scenes[start : start + CHUNK]), BLOCKS, normalize=False)
        for start in range(0, len(scenes), CHUNK)
    ]
    return [torch.cat(parts) for parts in zip(*chunks, strict=True)]


def _inputs(features: list[Tensor]) -> dict[str, list[Tensor]]:
    """Return the inputs `cls` and `patches` of every block, each `N×C` with a C of its own."""
    return {
        "cls": [feature_NJC[:, 0] for feature_NJC in features],
        "patches": [feature_NJC[:, 1:].flatten(1) for feature_NJC in features],
    }


def _accuracies(inputs: list[Tensor], words: dict[str, Tensor], fit: int, penalty: float) -> dict[str, list[float]]:
    """Return attribute -> accuracy for each of the inputs `N×C`; the regression is fitted to their first `fit` rows."""
    found: dict[str, list[float]] = {attribute: [] for attribute in words}
    for input_NC in inputs:
        x_NC = (input_NC - input_NC[:fit].mean(0)) / (input_NC[:fit].std(0) + 1e-6) / input_NC.shape[1] ** 0.5
        kernel_NN = x_NC @ x_NC[:fit].T
        system_NN = kernel_NN[:fit] + penalty * torch.eye(fit)
        for attribute, word_N in words.items():
            y_NV = F.one_hot(word_N[:fit]).float()
            offset_V = y_NV.mean(0)
            # The dual form has one unknown per scene, however wide the features are.
            logits_NV = kernel_NN[fit:] @ torch.linalg.solve(system_NN, y_NV - offset_V) + offset_V
            right = int((logits_NV.argmax(-1) == word_N[fit:]).sum())
            found[attribute].append(right / len(logits_NV))
    return found
