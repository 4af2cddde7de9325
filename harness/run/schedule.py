"""How long training is, and the learning rate of each optimiser step.

A recipe states its length in epochs, as the published runs do. Everything that runs or counts training works in
optimiser steps; `training_length` is the one place where epochs become steps.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from harness.config.plan import RunPlan
from harness.config.recipe import MOST_EPOCHS, TrainRecipe
from harness.errors import UserError


@dataclass(frozen=True)
class TrainingLength:
    """The length of training in optimiser steps.

    Attributes:
        steps: optimiser steps of the whole run, at least 1.
        steps_per_epoch: optimiser steps of one pass over the training examples. The last one may see fewer samples.
    """

    steps: int
    steps_per_epoch: int

    def epochs_after(self, steps: int) -> float:
        """Return how many epochs the first `steps` optimiser steps make, with fractions."""
        return steps / self.steps_per_epoch


def training_length(num_examples: int, recipe: TrainRecipe) -> TrainingLength:
    """Return how many optimiser steps a recipe takes.

    Args:
        num_examples: training examples.
        recipe: its epochs and batch size are used.
    """
    per_epoch = math.ceil(num_examples / recipe.batch_size)
    return TrainingLength(steps=max(1, round(recipe.epochs * per_epoch)), steps_per_epoch=per_epoch)


def with_steps(plan: RunPlan, steps: int, num_examples: int, given: Collection[str] = ()) -> RunPlan:
    """Return the plan with its training set to `steps` optimiser steps.

    The recipe's epochs change to match, so methods with different batch sizes get different epochs. The warm-up keeps
    its share, unless it was given. The oracle is returned unchanged, because it does not train.

    Args:
        plan: the run.
        steps: optimiser steps of the whole run.
        num_examples: training examples.
        given: the keys of `--set`.

    Raises:
        UserError: the warm-up that was given is longer than the training, or these are too many epochs.
    """
    if plan.is_oracle:
        return plan
    epochs = training_length(num_examples, plan.recipe).epochs_after(steps)
    if epochs > MOST_EPOCHS:
        raise UserError(
            f"--steps {steps}: these are {epochs:g} epochs, and at most {MOST_EPOCHS:g} are made; give fewer"
        )
    recipe = plan.recipe.with_length(epochs)
    if {"warmup_epochs", f"{plan.method}.warmup_epochs"} & {*given}:
        warmup = plan.recipe.warmup_epochs
        if warmup > epochs:
            raise UserError(
                f"--set warmup_epochs: {warmup:g} exceeds the {epochs:g} epochs of --steps {steps} ({plan.method}); "
                "give a smaller number"
            )
        recipe = recipe.model_copy(update={"warmup_epochs": warmup})
    return replace(plan, recipe=recipe)


def learning_rate(epoch: float, *, peak: float, minimum: float, warmup_epochs: float, epochs: float) -> float:
    """Return the learning rate of the reference runs: linear warm-up from zero, then half a cosine to `minimum`.

    Args:
        epoch: position in training, in epochs with fractions.
        peak: rate at the end of the warm-up.
        minimum: rate at the end of training.
        warmup_epochs: length of the warm-up.
        epochs: length of training, warm-up included.

    Returns:
        The rate of the optimiser step that starts at `epoch`.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-12)
    return minimum + (peak - minimum) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
