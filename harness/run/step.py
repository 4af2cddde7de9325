"""One optimiser step: its loss is the same mean, however its samples are divided.

The loss of a step is the mean over its labelled tokens. Every forward pass gives the sum over its own tokens; gradients
and token counts are added up over the forward passes and over the processes, and the gradients are divided by the count
before the update. Every process then makes the same update.
"""

import math
from collections.abc import Callable, Sequence

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn

from harness.data.collate import Collator, Example
from harness.errors import is_out_of_memory
from harness.processes import ALONE, Processes
from harness.run.execution import Execution, MicroBatch
from harness.run.random_states import RandomStates
from harness.run.stop import StopAgreed
from methods.base import Batch


class TrainingFailedError(RuntimeError):
    """The loss is NaN or infinite.

    Attributes:
        step: the optimiser step at which it happened, counted from 1.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"loss is {loss} at step {step}")
        self.step = step


def collate_micro_batches(
    examples: Sequence[Example], collator: Collator, size: int, processes: Processes = ALONE
) -> list[Batch]:
    """Return this process's samples of one optimiser step as batches of at most `size` samples.

    Samples of similar length share a batch where there are several, so that little of a batch is padding.

    Args:
        examples: the samples of the step.
        collator: makes right-padded batches.
        size: largest number of samples per batch.
        processes: those that share the samples.
    """
    examples = examples[processes.rank :: processes.count]
    if len(examples) > size:
        examples = sorted(examples, key=lambda example: len(example.prompt) + len(example.answer or ""))
    return [Batch(**collator(examples[start : start + size])) for start in range(0, len(examples), size)]


class OptimiserStep:
    """Makes the optimiser steps of one run.

    Args:
        execution: runs forward and backward passes.
        optimizer: over its trained parameters.
        micro_batch: samples per forward pass; its size is halved in place where memory runs out.
        max_grad_norm: gradients are scaled down to this norm; None leaves them as they are.
        device: the model's device.
        say: called with one line when the micro-batch is halved.
        processes: those that make the step together.
        stop_noted: returns whether this process, one of several, was asked to stop.
        checkpoint_due: returns whether this process finds that it is time for a checkpoint.

    Attributes:
        is_checkpoint_due: whether one of the processes found so in the last step; the same in all of them.
    """

    def __init__(
        self,
        execution: Execution,
        optimizer: torch.optim.Optimizer,
        micro_batch: MicroBatch,
        max_grad_norm: float | None,
        device: torch.device,
        say: Callable[[str], None],
        processes: Processes = ALONE,
        stop_noted: Callable[[], bool] = lambda: False,
        checkpoint_due: Callable[[], bool] = lambda: False,
    ) -> None:
        self.execution, self.optimizer, self.processes = execution, optimizer, processes
        self.stop_noted, self.checkpoint_due, self.is_checkpoint_due = stop_noted, checkpoint_due, False
        self.micro_batch, self.max_grad_norm, self.device, self.say = micro_batch, max_grad_norm, device, say
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, batches: Sequence[Batch] | Exception, rate: float, step: int) -> float:
        """Make one optimiser step and return its loss, the mean over its labelled tokens.

        Where no sample has a labelled token, because `max_length` cuts off every answer, the parameters and the
        optimiser stay as they are and the loss is 0.

        Args:
            batches: the samples of this process, on the CPU; or the error of loading them, which ends the step in every
                process. A batch of texts that were cut before their answer has no loss.
            rate: learning rate.
            step: number of the step, from 1, for the error message.

        Raises:
            TrainingFailedError: the loss is NaN or infinite. The parameters keep their values.
            OtherProcessFailedError: the step failed in another process.
            StopAgreed: one of several processes was asked to stop. The parameters, the optimiser and all random number
                generators are as they were before the step.
        """
        total, tokens = self._sums(batches)
        if not tokens:
            return 0.0  # there is nothing to learn from these samples
        if not math.isfinite(total):
            raise TrainingFailedError(step, total)
        self._average_gradients(tokens)
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self._forget_gradients()
        return total / tokens

    def _sums(self, batches: Sequence[Batch] | Exception) -> tuple[float, float]:
        """Leave the gradients of this process's summed loss in the parameters.

        Returns:
            The summed loss and the number of labelled tokens of all processes.
        """
        while True:
            states = RandomStates.now()
            own = self._attempt(batches)
            exhausted = isinstance(own, Exception) and is_out_of_memory(own)
            failed = isinstance(own, Exception) and not exhausted
            sums = (0.0, 0.0) if isinstance(own, Exception) else own
            # What one process meets, all must know at the same point, or they would wait for each other for ever.
            # It travels with the sums, so it costs no exchange of its own. One process has nothing to exchange, and
            # leaves the device alone.
            met = (exhausted, failed, self.checkpoint_due(), self.stop_noted())
            place = self.device if self.processes.count > 1 else "cpu"
            shared = torch.tensor([*sums, *met], dtype=torch.float64, device=place)
            total, tokens, any_exhausted, any_failed, any_due, any_stop = self.processes.sum(shared).tolist()
            self.is_checkpoint_due = bool(any_due)
            if any_stop:
                # Also where a process has failed: a signal to all may end those that prepare its batches.
                self._forget_gradients()
                states.restore()
                raise StopAgreed
            can_halve = self.micro_batch.automatic and self.micro_batch.size > 1
            if any_failed or (any_exhausted and not can_halve):
                with self.processes.together():
                    if isinstance(own, Exception):
                        raise own
            if not any_exhausted:
                return total, tokens
            # Drop the error, whose traceback keeps the tensors of the failed forward pass.
            del own
            self.execution.release()
            self._forget_gradients()
            clear_device_cache(garbage_collection=True)
            states.restore()
            before = self.micro_batch.size
            self.micro_batch.halve()
            self.say(f"out of memory with {before} samples per forward pass; going on with {self.micro_batch.size}")

    def _attempt(self, batches: Sequence[Batch] | Exception) -> tuple[float, float] | Exception:
        """Run forward and backward passes; return the summed loss and the number of tokens, or what went wrong."""
        try:
            parts = self.execution.agreed(self._parts(batches))
            if isinstance(parts, Exception):
                return parts
            sums: list[Tensor] = [self.execution.add_gradients(batch) for batch in parts]
            # Apart from the exchange between processes, this is the only synchronisation with the device in a step.
            total, count = torch.stack(sums).sum(dim=0).tolist() if sums else (0.0, 0.0)
            return total, count
        except Exception as error:
            return error

    def _parts(self, batches: Sequence[Batch] | Exception) -> list[Batch] | Exception:
        """Return batches of at most a micro-batch, those without a labelled token left out."""
        if isinstance(batches, Exception):
            return batches
        parts = [part for batch in batches for part in batch.split(self.micro_batch.size)]
        return [part for part in parts if len(part.facts.label_rows_Q)]

    def _forget_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=not self.execution.keeps_gradients)

    def _average_gradients(self, tokens: float) -> None:
        """Divide the gradients, summed over all processes, by the number of labelled tokens."""
        if self.processes.count > 1:
            own = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
            summed = self.processes.sum(torch.cat([gradient.flatten() for gradient in own]))
            parts = summed.split([p.numel() for p in self._parameters])
            for parameter, part in zip(self._parameters, parts, strict=True):
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                parameter.grad.copy_(part.view_as(parameter))
        if gradients := [p.grad for p in self._parameters if p.grad is not None]:
            torch._foreach_div_(gradients, tokens)  # on a GPU, one kernel for all of them
