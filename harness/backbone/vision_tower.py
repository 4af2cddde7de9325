"""The frozen vision tower: an open_clip vision transformer, loaded or built with random weights.

Shape suffixes as in `methods.base`: B batch, C vision width, H W image height and width, J patches; X is the number of
blocks asked for.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from harness.backbone.randomise import randomise
from harness.backbone.requirements import check_clip_name
from harness.config.presets import BackboneSpec
from harness.errors import UserError, first_line

if TYPE_CHECKING:  # importing open_clip takes a second
    from open_clip.transformer import VisionTransformer

RANDOM_CLIP = "ViT-L-14-quickgelu:openai"
"""The open_clip model that gives the sizes of a random vision tower if the preset names none."""


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
        config = open_clip.get_model_config(clip if clip.startswith("local-dir:") else clip.partition(":")[0])
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    with torch.device("meta"):
        visual = open_clip.CLIP(**{key: config[key] for key in keys if key in config}).visual.to(dtype)
    if device.type != "meta":
        visual = visual.to_empty(device=device)
        randomise(visual, seed=0)
    return VisionTower(_require_vit(visual, spec))


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
    given = {"model_name": spec.clip} if name == "local-dir" else {"model_name": name, "pretrained": tag}
    try:
        model = open_clip.create_model(**given, require_pretrained=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise UserError(f"--clip {spec.clip}: cannot be loaded ({reason}); give a complete open_clip model") from error
    return VisionTower(_require_vit(model.visual, spec)).to(device=device, dtype=dtype)


def _require_vit(visual: nn.Module, spec: BackboneSpec) -> "VisionTransformer":
    import open_clip.transformer

    if not isinstance(visual, open_clip.transformer.VisionTransformer):
        raise UserError(
            f"--clip {spec.clip}: is not an open_clip vision transformer; give one of open_clip's ViT models"
        )
    return visual
