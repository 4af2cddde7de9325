"""The training loop that all methods share. It runs in one process, or in several that share every optimiser step."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from harness.run.memory import peak_bytes
from harness.run.random_states import RandomStates
from harness.run.schedule import learning_rate, training_length
from harness.run.step import OptimiserStep, collate_micro_batches
from harness.run.stop import TrainingStop
from methods.base import Batch
from methods.parameters import is_decayed

WARMUP_STEPS = 3
"""How many first optimiser steps the step times leave out, because allocation, autotuning and caches settle then."""


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return AdamW's groups of the trainable parameters. Those that `is_decayed` leaves out get no weight decay.

    Args:
        module: its trainable parameters are grouped.
        weight_decay: weight decay of all other parameters.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    plain = [p for name, p in named if not is_decayed(name, p)]
    decayed = [p for name, p in named if is_decayed(name, p)]
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(module: nn.Module, recipe: TrainRecipe, rate: float = 0.0) -> torch.optim.AdamW:
    """Return the optimiser of every method: fused AdamW over `parameter_groups`.

    Args:
        module: its trainable parameters are optimised.
        recipe: weight decay and betas.
        rate: learning rate until it is set for the first step.
    """
    groups = parameter_groups(module, recipe.weight_decay)
    return torch.optim.AdamW(groups, lr=rate, betas=recipe.betas, fused=True)


def train(
    model: nn.Module,
    examples: Sequence[Example],
    collator: Collator,
    recipe: TrainRecipe,
    device: torch.device,
    seed: int,
    on_step: Callable[[StepMeasured], None] = lambda step: None,
    result: TrainResult | None = None,
    checkpoints: Checkpoints | None = None,
    say: Callable[[str], None] = lambda line: None,
    micro_batch: MicroBatch | None = None,
    processes: Processes = ALONE,
    loading: Loading | None = None,
    execution: Execution | None = None,
    between_steps: Callable[[], None] = lambda: None,
) -> TrainResult:
    """Train the model's trainable parameters in place.

    Args:
        model: a `TunedModel`; `model.summed_loss(batch)` returns the summed loss and the number of labelled tokens.
        examples: training examples with their answers.
        collator: makes right-padded batches of them.
        recipe: training settings; its epochs may be a fraction.
        device: the model's device.
        seed: seed of the order of the examples.
        on_step: called after each optimiser step with what it measured. Its own time does not count as training.
        result: filled in after every step, so that a run that stops early keeps its measurements; None makes a new one.
        checkpoints: where training resumes from and what it leaves on its way; None keeps nothing.
        say: called with a line about where training resumes, and when a forward pass does not fit into memory.
        micro_batch: samples per forward pass; None starts with the whole batch and halves it where memory runs out.
        processes: those that make every optimiser step together. The first one alone uses `checkpoints`.
        loading: how batches are prepared, which changes no result; None uses no workers.
        execution: how forward and backward passes run; None runs them eagerly.
        between_steps: called after `on_step`, and where training resumes. It may take long, so a stop of one process
            by itself does not wait for it. It must leave the model and all random number generators as they were.

    Returns:
        `result`.

    Raises:
        TrainingFailedError: the loss is NaN or infinite. The parameters keep the values from before that step.
        OtherProcessFailedError: training failed in another process.
        UserError: an image cannot be used.
        KeyboardInterrupt: a signal stopped training. There is a checkpoint of the whole steps before it.
    """
    loading = Loading() if loading is None else loading
    generator = torch.Generator().manual_seed(seed)
    result = TrainResult() if result is None else result
    micro_batch = MicroBatch.of(None, recipe.batch_size) if micro_batch is None else micro_batch
    adam = adamw(model, recipe)
    model.train()
    place = _Place(
        model, adam, generator, collator, result, processes, checkpoints, say, epoch_rng=generator.get_state()
    )
    place.resume(micro_batch)
    if loading.workers:
        collator.store.fill(example.image for example in examples if example.image is not None)
    order = BatchSampler(RandomSampler(examples, generator=generator), recipe.batch_size, drop_last=False)
    # Build the batches while their tensors are on the CPU, so that computing their facts needs no synchronisation.
    build = partial(collate_micro_batches, collator=collator, size=micro_batch.size, processes=processes)
    execution = Eager(model, device) if execution is None else execution
    stop = TrainingStop(processes)
    optimise = OptimiserStep(execution, adam, micro_batch, recipe.max_grad_norm, device, say, processes, stop.is_noted)
    length = training_length(len(examples), recipe)
    try:
        with stop.during_training(place.keep_or_say):
            between_steps()  # a stop may have come in the middle of it
            started = time.perf_counter() - result.total_s
            while len(result.steps) < length.steps:
                place.epoch_rng = generator.get_state()
                left = SkipBatchSampler(order, skip_batches=place.done)
                with prepared_batches(examples, left, build, collator, loading, generator) as epoch:
                    for batches in _with_failure(epoch):
                        step = len(result.steps)
                        if step >= length.steps:
                            break
                        begun = time.perf_counter()
                        rate = learning_rate(
                            length.epochs_after(step),
                            peak=recipe.learning_rate,
                            minimum=recipe.min_lr,
                            warmup_epochs=recipe.warmup_epochs,
                            epochs=recipe.epochs,
                        )
                        # A checkpoint holds whole steps and what was measured after each, so a stop waits for both.
                        with stop.during_step():
                            place.is_whole = False
                            loss = optimise(batches, rate, step + 1)
                            ended = time.perf_counter()
                            # The samples of all processes together.
                            samples = min(recipe.batch_size, len(examples) - place.done * recipe.batch_size)
                            result.steps.append(
                                StepMeasured(step + 1, loss, rate, samples, ended - begun, peak_bytes(device))
                            )
                            result.total_s = ended - started
                            result.epochs = length.epochs_after(step + 1)
                            result.micro_batch = micro_batch.size
                            place.done += 1
                            place.is_whole = True
                            on_step(result.steps[-1])
                        between_steps()
                        started += time.perf_counter() - ended
                        if processes.broadcast(checkpoints is not None and checkpoints.is_due):
                            place.keep_or_say()
                place.done = 0
    except (KeyboardInterrupt, BrokenPipeError):
        # Several processes have written it together already, if all of them are still there.
        if processes.count == 1 and place.is_whole:
            place.keep_or_say()
        raise
    collator.cut.update(*processes.gather(collator.cut))
    return result


def _with_failure(loader: Iterable[list[Batch]]) -> Iterator[list[Batch] | Exception]:
    """Yield the batches of each optimiser step, and last, if the loader fails, the reason."""
    try:
        yield from loader
    except Exception as error:
        yield error


@dataclass
class _Place:
    """Where training is, with everything that a checkpoint of it holds.

    Attributes:
        model: the model; its trained parameters are the adapter.
        optimizer: the optimiser of these parameters.
        generator: draws the order of the examples.
        collator: knows which examples were cut.
        result: what training has measured.
        processes: those that train together; the first one alone has checkpoints.
        checkpoints: where they are kept, or None.
        say: called with a line about where training resumes, or why there is no checkpoint.
        epoch_rng: state of `generator` from before the current epoch.
        done: optimiser steps of the current epoch that are done.
        is_whole: whether no step is under way. A second signal stops training in the middle of a step.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    collator: Collator
    result: TrainResult
    processes: Processes
    checkpoints: Checkpoints | None
    say: Callable[[str], None]
    epoch_rng: Tensor
    done: int = 0
    is_whole: bool = True

    def resume(self, micro_batch: MicroBatch) -> None:
        """Put everything back to the newest checkpoint of the first process, if there is one."""
        own = self.checkpoints
        found = self.processes.broadcast(own.latest(self.say) if own is not None else None)
        if found is None:
            return
        state, tensors = found
        restore_training(state, tensors, self.model, self.optimizer, self.processes.rank)
        self.generator.set_state(tensors["rng.epoch"])
        self.collator.cut.update(state.cut)
        vars(self.result).update(vars(state.measured))
        if micro_batch.automatic and self.result.micro_batch is not None:
            micro_batch.size = self.result.micro_batch
        self.say(f"resuming after optimiser step {len(self.result.steps)}")
        self.done = state.steps_of_epoch

    def keep_or_say(self) -> None:
        """Write a checkpoint, or say why there is none; training goes on without it. All processes call this together.

        Before the first step there is nothing to keep.
        """
        if not self.result.steps:
            return
        try:
            self._keep()
        except UserError as error:
            self.say(f"no checkpoint after optimiser step {len(self.result.steps)}: {error}")

    def _keep(self) -> None:
        states, cut = self.processes.gather(RandomStates.now()), self.processes.gather(self.collator.cut)
        if self.checkpoints is not None:
            progress = {"measured": self.result, "steps_of_epoch": self.done, "cut": sorted(set().union(*cut))}
            self.checkpoints.write(progress, training_tensors(self.model, self.optimizer, self.epoch_rng, states))
