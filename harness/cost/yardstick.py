"""The yardstick of a speed measurement: the frozen language model and the frozen vision tower, without an adapter.

Every method needs at least the yardstick's work in inference. In training the yardstick does somewhat more:

- Inference encodes the images with CLIP up to the penultimate block, prefills the text and decodes tokens. The images
  do not affect the answer.
- Training runs the same forward passes. It computes logits at *all* positions, cross-entropy at the labelled positions,
  and the backward pass through every frozen block of both towers. Two trained vectors make the backward pass run that
  far: one is added to the embedded text, the other to the embedded patches. The mean of the patch features is added to
  the loss, so that the loss depends on the vision tower. The gradient itself has no meaning.

Shape suffixes as in `methods.base`.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import IGNORE_INDEX, Backbone, Batch, InputSequence, VisualFeatures, plain_sequence
from methods.frozen import Frozen
from methods.tuned import TunedModel


class TrainableShift(nn.Module):
    """Computes `module(x) + shift` where gradients are enabled, and `module(x)` otherwise.

    Args:
        module: a frozen module.
        shift: a trained vector as wide as the module's output.
    """

    def __init__(self, module: nn.Module, shift: nn.Parameter) -> None:
        super().__init__()
        self.module = module
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the module, with the shift where gradients are enabled."""
        y: Tensor = self.module(x)
        return y + self.shift.to(y.dtype) if torch.is_grad_enabled() else y


class Yardstick(Frozen):
    """The bare backbone as a method. It satisfies the contract of `methods.base` but is not registered.

    Args:
        backbone: the frozen backbone; the first norm of its vision tower is wrapped in place.
    """

    title: ClassVar[str] = "Frozen LLM and CLIP, no adapter"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.text_D = nn.Parameter(torch.zeros(backbone.hidden_size))
        self.patch_C = nn.Parameter(torch.zeros(backbone.vision.width))
        visual = backbone.vision.visual
        visual.ln_pre = TrainableShift(visual.ln_pre, self.patch_C)

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return `features_BJC` of the penultimate block. Only one method needs a deeper block."""
        penultimate = backbone.vision.num_layers - 1
        (features_BJC,) = backbone.vision.features(images_BCHW, [penultimate], normalize=True)
        return {"features_BJC": features_BJC}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Return the text alone."""
        embed: Any = backbone.llm.model.embed_tokens
        return plain_sequence(TrainableShift(embed, self.text_D), batch)


class YardstickModel(TunedModel):
    """A backbone with a `Yardstick` attached, and its own training loss."""

    def summed_loss(self, batch: Batch, visual: VisualFeatures | None = None) -> tuple[Tensor, Tensor]:
        """Return the training loss that the top of this file describes, and the number of labelled tokens.

        Args:
            batch: must have labels.
            visual: features from `encode`; None encodes the images here.
        """
        assert batch.labels_BL is not None, "only a batch with labels has a loss"
        visual = self.encode(batch) if visual is None else visual
        logits_BTV = self.logits(batch, visual)[:, :-1]
        targets = batch.labels_BL[:, 1:].flatten()
        text = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets, ignore_index=IGNORE_INDEX, reduction="sum")
        return text + visual["features_BJC"].float().mean(), (targets != IGNORE_INDEX).sum()
