"""The yardstick of a speed measurement: the frozen language model on text and the frozen vision tower, no adapter.

What cannot be avoided, and for training somewhat more than that:
- Inference: CLIP up to the penultimate block, prefill of the text, decoded tokens. The image changes no answer.
- Training: the same forwards, logits on **all** positions, cross-entropy on the labelled ones, and a backward through
  every frozen block of both towers. Two trained vectors, on the embedded text and on the tower's embedded patches,
  make it run that far; the mean of the patch features joins the loss to reach the tower. The gradient means nothing.

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
    """`module(x) + shift` where gradients are wanted, else `module(x)`.

    Args:
        module: frozen.
        shift: a vector of its output's width.
    """

    def __init__(self, module: nn.Module, shift: nn.Parameter) -> None:
        super().__init__()
        self.module = module
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """`…×C` to `…×C`."""
        y = self.module(x)
        return y + self.shift.to(y.dtype) if torch.is_grad_enabled() else y


class Yardstick(Frozen):
    """Satisfies the method contract; not registered.

    Args:
        backbone: the frozen backbone; its vision tower's first norm is wrapped in place.
    """

    title: ClassVar[str] = "Frozen LLM and CLIP, no adapter"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.text_D = nn.Parameter(torch.zeros(backbone.hidden_size))
        self.patch_C = nn.Parameter(torch.zeros(backbone.vision.width))
        visual = backbone.vision.visual
        visual.ln_pre = TrainableShift(visual.ln_pre, self.patch_C)

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """`features_BJC` of the penultimate block, the deepest that all methods but one need."""
        penultimate = backbone.vision.num_layers - 1
        (features_BJC,) = backbone.vision.features(images_BCHW, [penultimate], normalize=True)
        return {"features_BJC": features_BJC}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Text alone."""
        embed: Any = backbone.llm.model.embed_tokens
        return plain_sequence(TrainableShift(embed, self.text_D), batch)


def yardstick_loss(model: TunedModel, batch: Batch) -> Tensor:
    """The loss described above; `model` has a `Yardstick` attached."""
    assert batch.labels_BL is not None
    visual = model.encode(batch)
    logits_BTV = model.logits(batch, visual)[:, :-1]
    text = F.cross_entropy(
        logits_BTV.flatten(0, 1).float(), batch.labels_BL[:, 1:].flatten(), ignore_index=IGNORE_INDEX
    )
    return text + visual["features_BJC"].float().mean()
