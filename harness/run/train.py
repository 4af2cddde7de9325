"""The training loop that all methods share. It runs on one process or several, through accelerate."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator, skip_first_batches
from torch import nn
from torch.utils.data import DataLoader

from harness.config.recipes import TrainRecipe
from harness.data.collate import Collator, Example
from harness.errors import UserError
from harness.run.checkpoint import Checkpoints, restore_training, training_tensors
from harness.run.schedule import learning_rate, training_length
from methods.base import Batch

WARMUP_STEPS = 3
"""How many first optimiser steps the step times leave out, because allocation, autotuning and caches settle then."""


class TrainingFailedError(RuntimeError):
    """The loss is NaN or infinite.

    Attributes:
        step: the optimiser step at which it happened, counted from 1.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"loss is {loss} at step {step}")
        self.step = step


@dataclass
class TrainResult:
    """What training has measured.

    Attributes:
        losses: loss of each optimiser step, on this process.
        step_s: seconds per optimiser step.
        total_s: seconds of the whole loop.
        epochs: passes over the training examples, with fractions.
    """

    losses: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    total_s: float = 0.0
    epochs: float = 0.0


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return AdamW's groups of the trainable parameters. Biases and 1-D parameters get no weight decay.

    Args:
        module: its trainable parameters are grouped.
        weight_decay: weight decay of all other parameters.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    plain = [p for name, p in named if p.ndim <= 1 or name.endswith("bias")]
    decayed = [p for name, p in named if not (p.ndim <= 1 or name.endswith("bias"))]
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
    accelerator: Accelerator,
    seed: int,
    on_step: Callable[[int, float, float], None] = lambda step, loss, rate: None,
    result: TrainResult | None = None,
    checkpoints: Checkpoints | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> TrainResult:
    """Train the model's trainable parameters in place.

    Args:
        model: a `TunedModel`; `model(batch)` returns the loss.
        examples: training examples with their answers.
        collator: makes right-padded batches of them.
        recipe: training settings; its epochs may be a fraction.
        accelerator: moves the model to its device and, with several processes, averages the gradients.
        seed: seed of the order of the examples.
        on_step: called after each optimiser step with its number (from 1), its loss and its learning rate.
        result: filled in after every step, so that a run that stops early keeps its measurements; None makes a new one.
        checkpoints: where training resumes from and what it leaves on its way; None keeps nothing.
        say: called with a line about where training resumes.

    Returns:
        `result`.

    Raises:
        TrainingFailedError: the loss is NaN or infinite. The parameters keep the values from before that step.
        UserError: `max_length` cuts off every answer of an optimiser step.
    """
    generator = torch.Generator().manual_seed(seed)
    result = TrainResult() if result is None else result
    loader: DataLoader[Example] = DataLoader(
        examples,  # type: ignore[arg-type]  # a sequence is enough, though torch's annotation asks for a Dataset
        batch_size=recipe.batch_size,
        shuffle=True,
        generator=generator,
        # Build the batch while its tensors are on the CPU, so that computing its facts needs no synchronisation.
        collate_fn=lambda samples: Batch(**collator(samples)),
    )
    adam = adamw(model, recipe)
    prepared, optimizer, loader = accelerator.prepare(model, adam, loader)
    prepared.train()
    done = _resume(checkpoints, model, adam, generator, collator, result, say)
    length = training_length(len(examples), recipe, accelerator.num_processes)
    peak = recipe.learning_rate(accelerator.num_processes)
    started = time.perf_counter() - result.total_s
    while len(result.losses) < length.steps:
        epoch_rng = generator.get_state()
        for group in _groups_of(skip_first_batches(loader, done) if done else loader, recipe.accumulation):
            step = len(result.losses)
            if step >= length.steps:
                break
            begun = time.perf_counter()
            rate = learning_rate(
                length.epochs_after(step),
                peak=peak,
                minimum=recipe.min_lr,
                warmup_epochs=recipe.warmup_epochs,
                epochs=recipe.epochs,
            )
            loss = _step(prepared, optimizer, group, rate, recipe, accelerator, step + 1)
            result.losses.append(loss)
            result.step_s.append(time.perf_counter() - begun)
            result.total_s = time.perf_counter() - started
            result.epochs = length.epochs_after(len(result.losses))
            on_step(step + 1, loss, rate)
            done += len(group)
            if checkpoints is not None and checkpoints.is_due:
                measured = {name: getattr(result, name) for name in ("losses", "step_s", "total_s")}
                place = {"batches_of_epoch": done, "cut": sorted(collator.cut)}
                checkpoints.write({**measured, **place}, training_tensors(model, adam, epoch_rng))
        done = 0
    accelerator.wait_for_everyone()
    return result


def _resume(
    checkpoints: Checkpoints | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    collator: Collator,
    result: TrainResult,
    say: Callable[[str], None],
) -> int:
    """Put everything back to the newest checkpoint, if there is one.

    Returns:
        The number of batches of the current epoch that are done.
    """
    found = checkpoints.latest(say) if checkpoints is not None else None
    if found is None:
        return 0
    state, tensors = found
    restore_training(state, tensors, model, optimizer)
    generator.set_state(tensors["rng.epoch"])
    collator.cut.update(state.cut)
    result.losses[:], result.step_s[:], result.total_s = state.losses, state.step_s, state.total_s
    say(f"resuming after optimiser step {len(state.losses)}")
    return state.batches_of_epoch


def _groups_of(loader: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield the batches in lists of `size`, one list per optimiser step. The last list may be shorter."""
    group: list[Batch] = []
    for batch in loader:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _with_labels(group: Sequence[Batch], recipe: TrainRecipe) -> list[Batch]:
    """Return the batches of an optimiser step that have a label. A batch of texts cut before their answer has none."""
    labelled = [batch for batch in group if len(batch.facts.label_rows_Q)]
    if not labelled:
        raise UserError(f"--set max_length={recipe.max_length}: cuts off every answer of a step; give a larger number")
    return labelled


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    group: list[Batch],
    rate: float,
    recipe: TrainRecipe,
    accelerator: Accelerator,
    step: int,
) -> float:
    """Make one optimiser step over the batches of `group`; return their mean loss."""
    for parameters in optimizer.param_groups:
        parameters["lr"] = rate
    losses: list[float] = []
    group = _with_labels(group, recipe)
    for index, batch in enumerate(group):
        is_last = index == len(group) - 1
        with nullcontext() if is_last else accelerator.no_sync(model):
            loss = model(batch.to(accelerator.device))
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingFailedError(step, value)
            accelerator.backward(loss / len(group))
        losses.append(value)
    if recipe.max_grad_norm is not None:
        accelerator.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return sum(losses) / len(losses)
