"""The training loop that all methods share. It runs in one process, or in several that share every optimiser step."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from accelerate.data_loader import SkipBatchSampler
from torch import Tensor, nn
from torch.utils.data import BatchSampler, RandomSampler

from harness.config.recipe import TrainRecipe
from harness.data.collate import Collator, Example
from harness.data.loading import Loading, prepared_batches
from harness.errors import UserError
from harness.processes import ALONE, Processes
from harness.records import StepMeasured
from harness.run.checkpoint import Checkpoints, restore_training, training_tensors
from harness.run.execution import Eager, Execution, MicroBatch
from harness.run.measured import TrainResult
from harness.run.memory import largest_peak, main_peak, read_peak
from harness.run.optimiser import adamw
from harness.run.random_states import RandomStates
from harness.run.schedule import learning_rate, training_length
from harness.run.step import OptimiserStep, collate_micro_batches
from harness.run.stop import TrainingStop
from methods.base import Batch


@dataclass(frozen=True)
class Resources:
    """What training runs on, and how its work is divided. The loss of a step does not depend on it.

    Attributes:
        device: the model's device.
        processes: those that make every optimiser step together. The first one alone uses checkpoints.
        loading: how batches are prepared.
        micro_batch: samples per forward pass; None starts with all samples of a process, and halves their number where
            memory runs out.
        execution: how forward and backward passes run; None runs them eagerly.
    """

    device: torch.device
    processes: Processes = ALONE
    loading: Loading = field(default_factory=Loading)
    micro_batch: MicroBatch | None = None
    execution: Execution | None = None


@dataclass(frozen=True)
class Callbacks:
    """What is called during training.

    Attributes:
        on_step: called after each optimiser step with what it measured. Its own time does not count as training.
        between_steps: called after `on_step`, and where training resumes. It may take long, so a stop of one process
            by itself does not wait for it. It must leave the model and all random number generators as they were.
        say: called with a line about where training resumes, why there is no checkpoint, and when a forward pass does
            not fit into memory.
    """

    on_step: Callable[[StepMeasured], None] = lambda step: None
    between_steps: Callable[[], None] = lambda: None
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class _Epoch:
    """Where training is in the order of the examples. It is replaced as a whole, so a stop never finds a half of it.

    Attributes:
        rng: state of the generator of the order, from before the current epoch.
        done: optimiser steps of this epoch that are done.
    """

    rng: Tensor
    done: int = 0


class Training:
    """Training of a model's trainable parameters in place, and where it is.

    Args:
        model: a `TunedModel`; `model.summed_loss(batch)` returns the summed loss and the number of labelled tokens.
        examples: training examples with their answers.
        collator: makes right-padded batches of them.
        recipe: training settings; its epochs may be a fraction.
        seed: seed of the order of the examples.
        resources: what training runs on.
        callbacks: what is called during training; None calls nothing.
        result: filled in after every step, so that a run that stops early keeps its measurements; None makes a new one.
        checkpoints: where training resumes from and what it keeps; None keeps nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: Sequence[Example],
        collator: Collator,
        recipe: TrainRecipe,
        seed: int,
        resources: Resources,
        callbacks: Callbacks | None = None,
        result: TrainResult | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.model, self.examples, self.collator, self.recipe = model, examples, collator, recipe
        self.resources, self.processes = resources, resources.processes
        self.callbacks = Callbacks() if callbacks is None else callbacks
        self.stop = TrainingStop(self.processes)
        self.result, self.checkpoints = TrainResult() if result is None else result, checkpoints
        self.length = training_length(len(examples), recipe)
        self.optimizer = adamw(model, recipe)
        model.train()
        self.micro_batch = resources.micro_batch or MicroBatch.of(None, recipe.batch_size, self.processes.count)
        # Samples are grouped by it also after it was halved, so that resuming makes the same passes as going on.
        self.grouped_by = self.micro_batch.size
        self.optimise = OptimiserStep(
            resources.execution or Eager(model, resources.device),
            self.optimizer,
            self.micro_batch,
            recipe.max_grad_norm,
            resources.device,
            self._say,
            self.processes,
            self.stop.is_noted,
            # The first process alone has checkpoints, so its clock decides.
            lambda: checkpoints is not None and checkpoints.is_due,
        )
        # Draws the order of the examples.
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = _Epoch(self.generator.get_state())
        # Whether no step is under way. A second signal stops training in the middle of one.
        self.is_whole = True
        self.started = 0.0
        # The step after which the last checkpoint was due.
        self.kept_after = 0
        # Since when the model has waited for its next batch.
        self.idle_since = 0.0

    def run(self, resumed: Callable[[], None] = lambda: None) -> TrainResult:
        """Make all steps that are left after the newest checkpoint.

        Args:
            resumed: called before the first of these steps.

        Returns:
            What was measured.

        Raises:
            TrainingFailedError: the loss is NaN or infinite. The parameters keep the values from before that step.
            OtherProcessFailedError: training failed in another process.
            UserError: an image cannot be used.
            KeyboardInterrupt: a signal stopped training, or one of several processes has no reader of its output any
                more. There is a checkpoint of the whole steps before it.
            BrokenPipeError: nobody reads the output of the only process any more. There is a checkpoint as well.
        """
        self._resume()
        resumed()
        self._make_steps()
        return self.result

    def _resume(self) -> None:
        """Put everything back to the newest checkpoint of the first process, if there is one."""
        own, say = self.checkpoints, self._say
        found = self.processes.broadcast(own.latest(say) if own is not None else None)
        if found is None:
            return
        state, tensors = found
        restore_training(state, tensors, self.model, self.optimizer, self.processes.rank)
        self.generator.set_state(tensors["rng.epoch"])
        self.collator.cut.update(state.cut)
        vars(self.result).update(vars(state.measured))
        if self.micro_batch.automatic and self.result.micro_batch is not None:
            # Fewer processes may have made the checkpoint, with more samples in each.
            self.micro_batch.size = min(self.micro_batch.size, self.result.micro_batch)
        say(f"resuming after optimiser step {len(self.result.steps)}")
        self.epoch = _Epoch(tensors["rng.epoch"], state.steps_of_epoch)

    def _make_steps(self) -> None:
        if self.resources.loading.workers:
            self.collator.store.fill(example.image for example in self.examples if example.image is not None)
        # Build the batches while their tensors are on the CPU, so that computing their facts needs no synchronisation.
        build = partial(collate_micro_batches, collator=self.collator, size=self.grouped_by, processes=self.processes)
        try:
            with self.stop.during_training(self._keep_or_say):
                self._between_steps()  # a stop may have come in the middle of it
                self.idle_since = time.perf_counter()
                self.started = self.idle_since - self.result.total_s
                while not self._is_finished:
                    self._make_epoch(build)
                # A stop may come before the trained adapter is kept.
                if self.kept_after < len(self.result.steps):
                    self._keep_or_say()
        except (KeyboardInterrupt, BrokenPipeError):
            # Several processes have written it together already, if all of them are still there.
            if self.processes.count == 1 and self.is_whole:
                self._keep_or_say()
            raise
        self.collator.cut.update(*self.processes.gather(self.collator.cut))

    @property
    def _is_finished(self) -> bool:
        return len(self.result.steps) >= self.length.steps

    def _make_epoch(self, build: Callable[[Sequence[Example]], list[Batch]]) -> None:
        """Make the steps of one epoch that are left, of the batches that `build` makes of their samples."""
        sampler = RandomSampler(self.examples, generator=self.generator)
        order = BatchSampler(sampler, self.recipe.batch_size, drop_last=False)
        left = SkipBatchSampler(order, skip_batches=self.epoch.done)
        loading = self.resources.loading
        with prepared_batches(self.examples, left, build, self.collator, loading, self.generator) as prepared:
            for batches in _with_failure(prepared):
                if self._is_finished:
                    break
                ended = self._step(batches)
                self._between_steps()
                self.started += time.perf_counter() - ended
                if self.optimise.is_checkpoint_due:
                    self._keep_or_say()
                self.idle_since = time.perf_counter()
        self.epoch = _Epoch(self.generator.get_state())

    def _step(self, batches: list[Batch] | Exception) -> float:
        """Make one optimiser step, and return the time at which it ended."""
        recipe, length, result = self.recipe, self.length, self.result
        step = len(result.steps)
        begun = time.perf_counter()
        rate = learning_rate(
            length.epochs_after(step),
            peak=recipe.learning_rate,
            minimum=recipe.min_lr,
            warmup_epochs=recipe.warmup_epochs,
            epochs=recipe.epochs,
        )
        # A checkpoint holds whole steps and what was measured after each, so a stop waits for both.
        with self.stop.during_step():
            self.is_whole = False
            loss = self.optimise(batches, rate, step + 1)
            ended = time.perf_counter()
            # The samples of all processes together.
            samples = min(recipe.batch_size, len(self.examples) - self.epoch.done * recipe.batch_size)
            peak, waited = read_peak(self.resources.device), begun - self.idle_since
            memory = main_peak(peak, self.resources.device)
            result.steps.append(StepMeasured(step + 1, loss, rate, samples, ended - begun, memory, waited))
            result.peak = largest_peak(result.peak, peak)
            result.processes, result.sharded = self.processes.count, self.processes.are_in_step
            result.total_s = ended - self.started
            result.epochs = length.epochs_after(step + 1)
            result.micro_batch = self.micro_batch.size
            self.epoch = replace(self.epoch, done=self.epoch.done + 1)
            self.is_whole = True
            with self.stop.while_printing():
                self.callbacks.on_step(result.steps[-1])
        return ended

    def _keep_or_say(self) -> None:
        """Write a checkpoint, or say why there is none; training goes on without it. All processes call this together.

        Before the first step there is nothing to keep.
        """
        if not self.result.steps:
            return
        self.kept_after = len(self.result.steps)
        try:
            self._keep()
        except UserError as error:
            self._say(f"no checkpoint after optimiser step {len(self.result.steps)}: {error}")

    def _between_steps(self) -> None:
        with self.stop.while_printing():
            self.callbacks.between_steps()
        self.stop.leave_if_unread()

    def _say(self, line: str) -> None:
        """Say a line for the user. Where nobody reads it, training ends between two steps."""
        with self.stop.while_printing():
            self.callbacks.say(line)

    def _keep(self) -> None:
        states, cut = self.processes.gather(RandomStates.now()), self.processes.gather(self.collator.cut)
        if self.checkpoints is not None:
            progress = {
                "measured": self.result,
                "steps_of_epoch": self.epoch.done,
                "cut": sorted(set().union(*cut)),
            }
            tensors = training_tensors(self.model, self.optimizer, self.epoch.rng, states)
            self.checkpoints.write(progress, tensors, states)


def _with_failure(loader: Iterable[list[Batch]]) -> Iterator[list[Batch] | Exception]:
    """Yield the batches of each optimiser step, and last, if the loader fails, the reason."""
    try:
        yield from loader
    except Exception as error:
        yield error
