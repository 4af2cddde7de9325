"""How forward and backward passes run in training: one kernel after another, or as captured CUDA graphs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from methods.base import Batch


@dataclass
class MicroBatch:
    """How many samples share one forward pass in training. This is a matter of memory: the loss is the same mean.

    Attributes:
        size: samples per forward pass.
        automatic: whether the size is halved when a forward pass does not fit into memory.
    """

    size: int
    automatic: bool

    @classmethod
    def of(cls, option: int | None, batch_size: int, processes: int = 1) -> "MicroBatch":
        """Return the size that training starts with.

        Args:
            option: value of `--micro-batch`; None for `auto`, which starts with all samples of a process.
            batch_size: samples per optimiser step.
            processes: number of processes that share these samples.
        """
        share = math.ceil(batch_size / processes)
        return cls(share if option is None else min(option, share), automatic=option is None)

    def halve(self) -> None:
        """Halve the size, rounded up."""
        self.size = math.ceil(self.size / 2)


class Execution(Protocol):
    """Runs forward and backward passes.

    Attributes:
        keeps_gradients: whether the gradients must stay in the same memory from step to step.
    """

    keeps_gradients: bool

    def add_gradients(self, batch: Batch) -> Tensor:
        """Add the gradients of the batch's summed loss to those of the parameters.

        Args:
            batch: at most a micro-batch, on the CPU, with a labelled token.

        Returns:
            The summed loss and the number of labelled tokens, a float64 tensor of two values on the device.
        """
        ...

    def agreed(self, batches: Sequence[Batch] | Exception) -> Sequence[Batch] | Exception:
        """Return the passes of one optimiser step, which the other processes may have a say in.

        Args:
            batches: those that this process has; or the error of loading them.
        """
        ...

    def release(self) -> None:
        """Give back the memory that was kept for further passes, because the micro-batch changes its size."""
        ...


class Eager:
    """Launches one kernel after another.

    Args:
        model: a `TunedModel`, in training mode.
        device: the model's device.
    """

    keeps_gradients = False

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model: Any = model
        self.device = device

    def add_gradients(self, batch: Batch) -> Tensor:
        """See `Execution.add_gradients`."""
        return add_gradients(self.model, batch.to(self.device))

    def agreed(self, batches: Sequence[Batch] | Exception) -> Sequence[Batch] | Exception:
        """Return the batches: this process makes its passes by itself."""
        return batches

    def release(self) -> None:
        """Do nothing: no memory is kept."""


def add_gradients(model: Any, batch: Batch) -> Tensor:
    """Run a forward and a backward pass on the device of `batch`; return what `Execution.add_gradients` returns."""
    loss, tokens = model.summed_loss(batch)
    loss.backward()
    return torch.stack([loss.detach().double(), tokens.double()])
