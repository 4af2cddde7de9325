"""One optimiser step: its samples are divided into forward passes, and the division changes nothing but the memory.

The loss of a step is the mean over its labelled tokens. Every forward pass gives the sum over its own tokens; gradients
and token counts are added up over the forward passes, and the gradients are divided by the count before the update.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from harness.data.collate import Collator, Example
from harness.errors import UserError
from harness.run.random_states import RandomStates
from methods.base import Batch


class TrainingFailedError(RuntimeError):
    """The loss is NaN or infinite.

    Attributes:
        step: the optimiser step at which it happened, counted from 1.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"loss is {loss} at step {step}")
        self.step = step


@dataclass
class MicroBatch:
    """How many samples share one forward pass in training. This is a matter of memory and does not change the loss.

    Attributes:
        size: samples per forward pass.
        automatic: whether the size is halved when a forward pass does not fit into memory.
    """

    size: int
    automatic: bool

    @classmethod
    def of(cls, option: int | None, batch_size: int) -> "MicroBatch":
        """Return the size that training starts with.

        Args:
            option: value of `--micro-batch`; None for `auto`, which starts with the whole batch.
            batch_size: samples per optimiser step.
        """
        return cls(batch_size if option is None else min(option, batch_size), automatic=option is None)

    def halve(self) -> None:
        """Halve the size, rounded up."""
        self.size = math.ceil(self.size / 2)


def collate_micro_batches(examples: Sequence[Example], collator: Collator, size: int) -> list[Batch]:
    """Return the samples of one optimiser step as batches of at most `size` samples.

    Samples of similar length share a batch where there are several, so that little of a batch is padding.

    Args:
        examples: the samples.
        collator: makes right-padded batches.
        size: largest number of samples per batch.
    """
    if len(examples) > size:
        examples = sorted(examples, key=lambda example: len(example.prompt) + len(example.answer or ""))
    return [Batch(**collator(examples[start : start + size])) for start in range(0, len(examples), size)]


class OptimiserStep:
    """Makes the optimiser steps of one run.

    Args:
        model: a `TunedModel`, in training mode.
        optimizer: over its trained parameters.
        micro_batch: samples per forward pass; its size is halved in place where memory runs out.
        max_grad_norm: gradients are scaled down to this norm; None leaves them as they are.
        device: the model's device.
        say: called with one line when the micro-batch is halved.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        micro_batch: MicroBatch,
        max_grad_norm: float | None,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.model: Any = model
        self.optimizer = optimizer
        self.micro_batch, self.max_grad_norm, self.device, self.say = micro_batch, max_grad_norm, device, say
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, batches: Sequence[Batch], rate: float, step: int) -> float:
        """Make one optimiser step and return its loss, the mean over its labelled tokens.

        Args:
            batches: the samples, on the CPU. A batch of texts that were cut before their answer has no loss.
            rate: learning rate.
            step: number of the step, from 1, for the error message.

        Raises:
            TrainingFailedError: the loss is NaN or infinite. The parameters keep their values.
            UserError: no sample has a labelled token.
        """
        loss, tokens = self._gradients(batches)
        if not math.isfinite(loss):
            raise TrainingFailedError(step, loss)
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.div_(tokens)
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _gradients(self, batches: Sequence[Batch]) -> tuple[float, float]:
        """Leave the gradients of the summed loss in the parameters; return the mean loss and the number of tokens."""
        while True:
            states = RandomStates.now()
            try:
                return self._attempt([part for batch in batches for part in batch.split(self.micro_batch.size)])
            except RuntimeError as error:
                if not self.micro_batch.automatic or self.micro_batch.size == 1 or not should_reduce_batch_size(error):
                    raise
            # Outside the handler, so that the traceback does not keep the tensors of the failed forward pass.
            self.optimizer.zero_grad(set_to_none=True)
            clear_device_cache(garbage_collection=True)
            states.restore()
            before = self.micro_batch.size
            self.micro_batch.halve()
            self.say(f"out of memory with {before} samples per forward pass; going on with {self.micro_batch.size}")

    def _attempt(self, batches: Sequence[Batch]) -> tuple[float, float]:
        sums: list[Tensor] = []
        labelled = [batch for batch in batches if len(batch.facts.label_rows_Q)]
        if not labelled:
            raise UserError("--set max_length: cuts off every answer of an optimiser step; give a larger number")
        for batch in labelled:
            loss, tokens = self.model.summed_loss(batch.to(self.device))
            loss.backward()
            sums.append(torch.stack([loss.detach().double(), tokens.double()]))
        # Reading the sums is the only synchronisation with the device in a step.
        total, count = torch.stack(sums).sum(dim=0).tolist()
        return total / count, count
