"""The one backbone loader: a frozen Llama-family language model and a frozen open_clip vision tower.

Sole user of `open_clip` and of `from_pretrained`. Shape suffixes as in `methods.base`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class VisionTower(nn.Module):
    """An open_clip vision transformer, read block by block.

    Args:
        visual: `open_clip`'s `VisionTransformer`.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.width: int = visual.conv1.out_channels
        self.num_layers: int = len(visual.transformer.resblocks)
        self.num_patches: int = visual.grid_size[0] * visual.grid_size[1]
        self.image_size: int = visual.image_size[0]

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks."""
        return self.visual.transformer.resblocks

    def features(self, images_BCHW: Tensor, blocks: Sequence[int], *, normalize: bool) -> list[Tensor]:
        """Hidden states after 1-based `blocks`, each `B×(J+1)×C`, CLS first; later blocks do not run.

        Args:
            images_BCHW: normalised images of `image_size`.
            blocks: which blocks, in ascending order.
            normalize: apply `ln_post`.
        """
        dtype = self.visual.conv1.weight.dtype
        output = self.visual.forward_intermediates(
            images_BCHW.to(dtype),
            indices=[block - 1 for block in blocks],
            stop_early=True,
            normalize_intermediates=normalize,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        pairs = zip(output["image_intermediates_prefix"], output["image_intermediates"], strict=True)
        return [torch.cat(pair, dim=1) for pair in pairs]
