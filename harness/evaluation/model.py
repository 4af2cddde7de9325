"""What evaluation needs of a model."""

from typing import Protocol

import torch
from torch import Tensor

from methods.base import Backbone, Batch
from methods.tuned import DecodingState


class EvaluationFailedError(RuntimeError):
    """The model's logits are NaN or infinite, so its answers mean nothing."""


def require_finite(logits: Tensor, name: str) -> None:
    """Check that logits are numbers.

    Args:
        logits: the logits, of any shape.
        name: id of the first sample of their batch.

    Raises:
        EvaluationFailedError: one of them is NaN or infinite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise EvaluationFailedError(f"logits are NaN or infinite in the batch of problem {name}")


class EvaluatedModel(Protocol):
    """The part of `methods.tuned.TunedModel` that evaluation uses."""

    @property
    def backbone(self) -> Backbone:
        """The frozen backbone, for its tokenizer and its device."""
        ...

    def eval(self) -> object:
        """Switch to evaluation mode."""
        ...

    def prefill(self, batch: Batch) -> tuple[Tensor, DecodingState]:
        """Run left-padded prompts once; return the logits `B×V` of the next token, and the state for `step`."""
        ...

    def step(self, tokens_B: Tensor, state: DecodingState) -> Tensor:
        """Feed one token per sample; return the logits `B×V` of the next one, and advance `state` in place."""
        ...
