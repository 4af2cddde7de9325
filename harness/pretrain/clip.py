"""Train the tiny CLIP on pictures of the small world and their captions.

A batch consists of families. A family is a scene and other scenes that differ from it in one attribute of one thing.
Only that attribute tells their captions apart, so CLIP must also represent textures, outlines and sizes. Scenes drawn
independently differ so much that colour and place would be enough.

Shapes: B pairs, C = 3 channels, H = W = 64 pixels, T text positions, E embedding width.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from open_clip.model import CLIP
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from harness.data.images import IMAGENET_MEAN, IMAGENET_STD, ImagePreprocessor
from harness.data.mini.grammar import caption, describe
from harness.data.mini.render import SIZE, render
from harness.data.mini.world import ATTRIBUTES, DISTINCT, VOCABULARY, Scene, jittered, sample_scene
from harness.files import write_atomic
from harness.pretrain.schedule import warmup_cosine

WIDTH = 96
BATCH, FAMILY = 128, 4
COUNTS = (1, 1, 1, 1, 1, 2, 2, 3, 4)  # number of things per scene in training, drawn uniformly from these
WORDINGS = 3  # captions in training use the first three wordings, which name every attribute of a thing
LEARNING_RATE, WARMUP, WEIGHT_DECAY = 1.5e-3, 50, 0.05


def model_config(vocab_size: int) -> dict[str, Any]:
    """Return open_clip's `model_cfg`: a ViT of 8 blocks on 64 patches, and a small causal text tower."""
    narrow = {"width": WIDTH, "mlp_ratio": 2.0}
    return {
        "embed_dim": WIDTH,
        "quick_gelu": False,
        "vision_cfg": {"image_size": SIZE, "patch_size": 8, "layers": 8, "head_width": 24, **narrow},
        "text_cfg": {"context_length": 64, "vocab_size": vocab_size, "layers": 2, "heads": 4, **narrow},
    }


def tokenize_captions(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], length: int = 64) -> Tensor:
    """Return the token ids of captions as BOS, text, EOS and padding.

    open_clip pools the text at the position of the highest id, which is EOS.

    Args:
        tokenizer: the tokenizer of the small world.
        texts: the captions; longer ones are cut.
        length: number of positions T.

    Returns:
        int64, `B×T`.
    """
    rows = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)[: length - 2]
        ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
        rows.append(ids + [tokenizer.pad_token_id] * (length - len(ids)))
    return torch.tensor(rows)


def pictures(scenes: Sequence[Scene]) -> Tensor:
    """Render scenes and preprocess them as the benchmark does; float32, `B×C×H×W`."""
    preprocess = ImagePreprocessor(SIZE)
    return torch.stack([preprocess(render(scene)) for scene in scenes])


def family(rng: Random, size: int = FAMILY) -> list[Scene]:
    """Return a new scene and `size - 1` variants of it; each variant changes one attribute of one thing."""
    first = sample_scene(rng, rng.choice(COUNTS))
    scenes, descriptions = [first], {describe(first)}
    while len(scenes) < size:
        other = changed(rng, first)
        if (text := describe(other)) not in descriptions:
            descriptions.add(text)
            scenes.append(other)
    return scenes


def changed(rng: Random, scene: Scene) -> Scene:
    """Return the scene with one attribute of one thing changed, and with all shifts and phases drawn anew.

    The scene keeps its attributes where the chosen attribute has no other value left.
    """
    index = rng.randrange(len(scene.things))
    attribute = rng.choice(ATTRIBUTES)
    taken = scene.present(attribute) if attribute in DISTINCT else {getattr(scene.things[index], attribute)}
    free = [word for word in VOCABULARY[attribute] if word not in taken]
    things = list(scene.things)
    if free:
        change: dict[str, Any] = {attribute: rng.choice(free)}
        things[index] = replace(things[index], **change)
    return Scene(tuple(jittered(rng, thing) for thing in things), scene.background)


def train_clip(
    out: Path,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    steps: int,
    report: Callable[[int, str], None],
    save_every: int = 100,
) -> dict[str, float]:
    """Train CLIP contrastively and write `open_clip_config.json` and `open_clip_model.safetensors` to `out`.

    Args:
        out: folder to write to.
        tokenizer: the tokenizer of the small world.
        seed: seed of weights, scenes and captions.
        steps: number of optimiser steps; each draws `BATCH` new pairs.
        report: called with the step and a short line of progress.
        save_every: the weights are saved every this many steps.

    Returns:
        `steps`, `seconds`, and `train_retrieval`, a running mean of the retrieval accuracy within a batch.
    """
    torch.manual_seed(seed)
    rng = Random(seed + 2)
    config = model_config(len(tokenizer))
    model = CLIP(**config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    scheduler = warmup_cosine(optimizer, WARMUP, steps)
    started, smooth, labels_B = time.monotonic(), 0.0, torch.arange(BATCH)
    for step in range(1, steps + 1):
        scenes = [scene for _ in range(BATCH // FAMILY) for scene in family(rng)]
        ids_BT = tokenize_captions(tokenizer, [caption(scene, rng, rng.randrange(WORDINGS)) for scene in scenes])
        image_BE, text_BE, scale = model(pictures(scenes), ids_BT)[:3]
        logits_BB = scale * image_BE @ text_BE.T
        loss = (F.cross_entropy(logits_BB, labels_B) + F.cross_entropy(logits_BB.T, labels_B)) / 2
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6)
        accuracy = (logits_BB.argmax(-1) == labels_B).float().mean().item()
        smooth = 0.9 * smooth + 0.1 * accuracy
        if step % 10 == 0:
            report(step, f"loss {loss:.3f}, retrieved {smooth:.2f}")
        if step % save_every == 0 or step == steps:
            save_clip(model, config, out)
    return {"steps": steps, "seconds": round(time.monotonic() - started, 1), "train_retrieval": round(smooth, 4)}


def save_clip(model: CLIP, config: dict[str, Any], out: Path) -> None:
    """Write the weights, as float16, and the config to `out` in the layout of open_clip."""
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    write_atomic(out / "open_clip_model.safetensors", save(state))
    preprocess = {
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    write_atomic(out / "open_clip_config.json", text + "\n")
