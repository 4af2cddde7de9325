"""What training looked like from its first step to its last. Kept beside the record, for people to look at.

No table is made from it. Runs that were recorded before histories were kept have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.records.beside import HISTORY, OfRun, read_of_run, write_kept
from harness.records.fields import Count, Number, Seconds, Section

MOST_POINTS = 500
"""Largest number of points of a history."""


@dataclass(frozen=True)
class StepMeasured:
    """What one optimiser step measured.

    Attributes:
        step: its number, from 1.
        loss: training loss.
        learning_rate: learning rate.
        samples: number of samples.
        seconds: how long it took, once its batch was there.
        memory_bytes: peak memory so far; None where the platform does not report it.
        waited_s: how long it waited for its batch.
    """

    step: int
    loss: float
    learning_rate: float
    samples: int
    seconds: float
    memory_bytes: int | None = None
    waited_s: float = 0.0


class Point(Section):
    step: Annotated[Count, Field(ge=1)]
    """Last optimiser step of the point, from 1. A point covers the steps since the point before it."""
    loss: Number
    """Mean training loss of these steps."""
    learning_rate: Number
    """Mean learning rate of these steps."""
    samples_per_s: Seconds | None = None
    """Samples per second in these steps, the wait for their batches included, except in histories made before it was
    measured; null where no time was measured."""
    memory_bytes: Count | None = None
    """Peak memory of the process up to this step: what torch allocated on the GPU, else the resident memory; null where
    the platform does not report it."""


class Validation(Section):
    step: Count
    """Number of optimiser steps made before."""
    accuracy: Seconds
    """Accuracy in percent on a fixed sample of the validation split."""
    n: Count
    """Number of problems in the sample."""


class History(OfRun):
    """The history of one run. The description of each field is in results/README.md."""

    steps: Count
    """Number of optimiser steps."""
    points: list[Point]
    """The steps in order: the first and the last one alone, those between them in equal parts, 500 points at most."""
    validations: list[Validation] = Field(default_factory=list)
    """Validation during training, where it was asked for with --eval-every."""

    @model_validator(mode="after")
    def _covers_the_steps(self) -> Self:
        found = [point.step for point in self.points]
        if found != sorted(set(found)) or (found[-1] if found else 0) != self.steps:
            raise ValueError("points: their steps must grow, and the last one must be `steps`")
        return self


def make_history(spec_hash: str, steps: Sequence[StepMeasured], validations: Sequence[Validation] = ()) -> History:
    """Return the history of a run, with at most `MOST_POINTS` points.

    Args:
        spec_hash: the run's hash.
        steps: every optimiser step, in order.
        validations: validation during training.
    """
    return History(
        spec_hash=spec_hash,
        steps=len(steps),
        points=[_point(steps[first:last]) for first, last in bins(len(steps), MOST_POINTS)],
        validations=list(validations),
    )


def bins(count: int, most: int) -> list[tuple[int, int]]:
    """Divide `count` things in order into at most `most` parts; the first and the last thing are parts of their own.

    Args:
        count: number of things.
        most: largest number of parts, at least 3.

    Returns:
        The first index of each part, and the one after its last.
    """
    if count <= most:
        return [(index, index + 1) for index in range(count)]
    inner, parts = count - 2, most - 2
    edges = [1 + inner * part // parts for part in range(parts + 1)]
    return [(0, 1), *pairwise(edges), (count - 1, count)]


def samples_per_s(steps: Sequence[StepMeasured]) -> float | None:
    """Return how many samples per second steps took, the wait for their batches included; None without any time.

    Args:
        steps: optimiser steps.
    """
    seconds = sum(step.seconds + step.waited_s for step in steps)
    return sum(step.samples for step in steps) / seconds if seconds > 0 else None


def _point(steps: Sequence[StepMeasured]) -> Point:
    memory = [step.memory_bytes for step in steps if step.memory_bytes is not None]
    return Point(
        step=steps[-1].step,
        loss=sum(step.loss for step in steps) / len(steps),
        learning_rate=sum(step.learning_rate for step in steps) / len(steps),
        samples_per_s=samples_per_s(steps),
        memory_bytes=max(memory) if memory else None,
    )


def history_path(record_path: Path) -> Path:
    """Return the path of a run's history: next to its record, with the ending `.history.json`."""
    return record_path.with_suffix(HISTORY)


def write_history(record_path: Path, history: History) -> Path:
    """Write a run's history next to its record, atomically, and return its path."""
    return write_kept(history_path(record_path), history)


def read_history(record_path: Path) -> History | None:
    """Return the history of a record's run; None if there is none.

    Raises:
        UserError: the file cannot be read, is not a history, or is that of another run.
    """
    return read_of_run(history_path(record_path), History, record_path)
