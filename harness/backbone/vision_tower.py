"""The frozen vision tower: an open_clip vision transformer, loaded or built with random weights.

Shape suffixes as in `methods.base`: B batch, C vision width (in `images_BCHW` the three colours), H W image height and
width, J patches; X is the number of blocks asked for.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from harness.backbone.randomise import randomise
from harness.backbone.requirements import check_clip_name, require_free_memory, require_stored
from harness.backbone.weights import clip_fault, clip_file
from harness.config.presets import BackboneSpec
from harness.data.jsonio import read_json
from harness.errors import UserError, foreign

if TYPE_CHECKING:  # importing open_clip takes a second
    from open_clip import CLIP
    from open_clip.transformer import VisionTransformer

RANDOM_CLIP = "ViT-L-14-quickgelu:openai"
"""The open_clip model that gives the sizes of a random vision tower if the preset names none."""
LARGEST_SIZE = 2**24
"""No size of a usable CLIP model is larger."""
LIMITS = {"layers": 1000, "image_size": 10_000, "context_length": 10_000}
"""Field of a tower's config -> its limit, where that is smaller."""


class VisionTower(nn.Module):
    """An open_clip vision transformer that returns hidden states of any block; see `methods.base.VisionTower`.

    Args:
        visual: the `visual` part of an open_clip model. Its attention layers are switched to sequence-first in place.
    """

    def __init__(self, visual: "VisionTransformer") -> None:
        super().__init__()
        self.visual = visual
        self.width: int = visual.conv1.out_channels
        self.num_layers: int = len(visual.transformer.resblocks)
        self.num_patches: int = visual.grid_size[0] * visual.grid_size[1]
        self.image_size: int = visual.image_size[0]
        # With the batch first, each attention gives its linear layers a transposed view, and one large matrix product
        # becomes many small ones.
        for module in visual.transformer.modules():
            if hasattr(module, "batch_first"):
                module.batch_first = False

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        return cast(nn.ModuleList, self.visual.transformer.resblocks)

    def features(self, images_BCHW: Tensor, blocks: Sequence[int], *, normalize: bool) -> list[Tensor]:
        """Return the hidden states after the given blocks. Blocks after the last one asked for do not run.

        Args:
            images_BCHW: normalised images of `image_size`; C is the three colours.
            blocks: numbers of the blocks, counted from 1, in ascending order.
            normalize: apply the tower's last layer norm, `ln_post`.

        Returns:
            One tensor `B×(J+1)×C` per block, with the CLS token first.
        """
        states = self._states(images_BCHW, blocks)
        return [self.visual.ln_post(state_BJC) for state_BJC in states] if normalize else states

    def stacked_features(self, images_BCHW: Tensor, blocks: Sequence[int], *, normalize: bool) -> Tensor:
        """Return what `features` returns as one tensor, `B×X×(J+1)×C`. The arguments are those of `features`."""
        states_BXJC = torch.stack(self._states(images_BCHW, blocks), dim=1)
        return self.visual.ln_post(states_BXJC) if normalize else states_BXJC

    def _states(self, images_BCHW: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        # The transformer's `forward_intermediates` keeps CLS in place; the tower's method of that name splits it off.
        tokens = self.visual._embeds(images_BCHW.to(self.visual.conv1.weight.dtype))
        indices = [block - 1 for block in blocks]
        _, states = self.visual.transformer.forward_intermediates(tokens, indices=indices, stop_early=True)
        return cast(list[Tensor], states)


def random_vision_tower(spec: BackboneSpec, device: torch.device, dtype: torch.dtype) -> VisionTower:
    """Build a vision tower with random weights.

    Args:
        spec: gives its sizes; a spec without a CLIP model and config gets those of `RANDOM_CLIP`.
        device: where the weights are created; on the meta device they have shapes only.
        dtype: dtype of the weights.

    Raises:
        UserError: open_clip has no model of the spec's name, or the model is not a vision transformer.
    """
    import open_clip

    clip = spec.clip or RANDOM_CLIP
    config = spec.clip_config
    if config is None:
        check_clip_name(clip, weights=False)
        local = clip.startswith("local-dir:")
        config = _local_config(clip) if local else open_clip.get_model_config(clip.partition(":")[0])
    visual = _require_vit(_clip_on_meta(config, spec).visual, spec).to(dtype)
    if device.type != "meta":
        visual = visual.to_empty(device=device)
        randomise(visual, seed=0)
    return VisionTower(visual)


def _local_config(clip: str) -> dict[str, Any]:
    """Return the `model_cfg` of an open_clip folder.

    Args:
        clip: `local-dir:FOLDER`.

    Raises:
        UserError: the file is unusable, a size in it is, or it names a model that is not in the folder.
    """
    path = Path(clip.partition(":")[2], "open_clip_config.json")
    content = read_json(path)
    config = content.get("model_cfg") if isinstance(content, dict) else None
    if not isinstance(config, dict):
        raise UserError(f"--clip {clip}: {path.name} has no model_cfg; give the folder of an open_clip model")
    for part, other in (("vision_cfg", "timm_model_name"), ("text_cfg", "hf_model_name")):
        sizes = config.get(part)
        if not isinstance(sizes, dict):
            raise UserError(f"--clip {clip}: {path.name} has no {part}; give the folder of an open_clip model")
        if other in sizes:
            raise UserError(f"--clip {clip}: {part}.{other} names a model of another library; give an open_clip ViT")
        if isinstance(sizes.get("layers"), list):
            raise UserError(f"--clip {clip}: is not an open_clip vision transformer; {part}.layers is a list")
        for name, given in sizes.items():
            limit = LIMITS.get(name, LARGEST_SIZE)
            for size in given if isinstance(given, list) else [given]:
                # Not `size > limit`: NaN is not larger than anything.
                if isinstance(size, int | float) and not 0 <= size <= limit:
                    raise UserError(
                        f"--clip {clip}: {part}.{name} is {given!r:.40}; "
                        f"correct {path.name} to a number from 0 to {limit}"
                    )
    return config


def local_settings(spec: BackboneSpec) -> dict[str, Any] | None:
    """Return the settings of a vision tower in a folder, without its text tower's; None for one that has a name."""
    if spec.clip is None or not spec.clip.startswith("local-dir:"):
        return None
    return {name: value for name, value in _local_config(spec.clip).items() if name != "text_cfg"}


def _clip_on_meta(config: Mapping[str, Any], spec: BackboneSpec) -> "CLIP":
    """Return the model of a `model_cfg`, with shapes and without values.

    Raises:
        UserError: no model can be built from it.
    """
    import open_clip

    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    wrong = f"--clip {spec.clip}: no model can be built from its config"
    with foreign(wrong, "give another open_clip model"), torch.device("meta"):
        return open_clip.CLIP(**{key: config[key] for key in keys if key in config})


def pretrained_vision_tower(spec: BackboneSpec, device: torch.device, dtype: torch.dtype) -> VisionTower:
    """Load the vision tower that the spec names.

    Args:
        spec: names the open_clip model and its weights.
        device: where the weights go.
        dtype: dtype of the weights.

    Raises:
        UserError: its weights cannot be loaded, or it is not a vision transformer.
    """
    import open_clip

    assert spec.clip is not None, "require_weights has checked it"
    name, _, tag = spec.clip.partition(":")
    local = name == "local-dir"
    if local:
        if fault := clip_fault(Path(spec.clip.partition(":")[2])):
            raise UserError(f"--clip {spec.clip}: {fault}")
        shapes = _clip_on_meta(_local_config(spec.clip), spec)
        needed = sum(tensor.nbytes for tensor in (*shapes.parameters(), *shapes.buffers()))
        require_free_memory(needed, torch.float32, torch.device("cpu"), f"--clip {spec.clip}")
        files = Path(spec.clip.partition(":")[2]).glob("*.safetensors")
        require_stored(f"--clip {spec.clip}", sum(parameter.numel() for parameter in shapes.parameters()), files)
    # The file and not the tag, where it is here: nothing is then asked of the hub again.
    weights = None if local else clip_file(spec.clip)
    given = {"model_name": spec.clip} if local else {"model_name": name, "pretrained": str(weights or tag)}
    with foreign(f"--clip {spec.clip}: cannot be loaded", "give a complete open_clip model in safetensors"):
        # Older weights of open_clip's own list are pickled; torch then reads tensors and nothing else.
        model = open_clip.create_model(**given, require_pretrained=True, weights_only=True)
    return VisionTower(_require_vit(model.visual, spec)).to(device=device, dtype=dtype)


def _require_vit(visual: nn.Module, spec: BackboneSpec) -> "VisionTransformer":
    import open_clip.transformer

    if not isinstance(visual, open_clip.transformer.VisionTransformer):
        raise UserError(
            f"--clip {spec.clip}: is not an open_clip vision transformer; give one of open_clip's ViT models"
        )
    # A tower with an attentional pool, such as CoCa's, normalises what the pool returns, not the states of its blocks.
    norm, states = getattr(visual.ln_post, "normalized_shape", None), visual.conv1.out_channels
    if norm is not None and tuple(norm) != (states,):
        raise UserError(
            f"--clip {spec.clip}: its ln_post takes {tuple(norm)[-1]} values, but its blocks return {states}; "
            "give a CLIP model without an attentional pool"
        )
    height, width = visual.image_size
    if height != width:
        raise UserError(f"--clip {spec.clip}: takes images of {width}x{height} pixels; give one for square images")
    return visual
