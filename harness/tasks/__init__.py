"""What is trained on and scored: one module a task, loaded when asked for."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.data.dataset import DataSet
from harness.errors import UserError
from harness.records import Data, Metric, ParseFailures
from harness.tasks.samples import Shown

_TASKS = {"scienceqa": "harness.tasks.scienceqa:ScienceQATask", "coco": "harness.tasks.coco:CocoTask"}
OnProgress = Callable[[int], None]


@dataclass(frozen=True)
class DataOptions:
    """Which data a run reads.

    Attributes:
        root: data folder; None: the procedural set, made on first use.
        limit: records kept a split; None: all.
        skip_bad_images: leave out records whose image cannot be read instead of stopping.
        full: the folder is meant to hold the full benchmark.
    """

    root: Path | None = None
    limit: int | None = None
    skip_bad_images: bool = False
    full: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Outcome of one evaluation.

    Attributes:
        metrics: column -> metric.
        failures: answers that could not be read; None for tasks without.
        truncated: prompts that were cut to the recipe's `max_length`.
        rows: predictions, one a sample.
        shown: samples to keep with their images, see `harness.tasks.samples`.
        eval_s, scoring_s: seconds of decoding and of scoring.
    """

    metrics: dict[str, Metric]
    failures: ParseFailures | None
    truncated: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    shown: Sequence[Shown] = ()
    eval_s: float = 0.0
    scoring_s: float = 0.0


class Task(Protocol):
    """One task on one data folder."""

    name: str

    def data(self, recipe: Any) -> Data:
        """The record's data section of a run with `recipe`."""
        ...

    def train_examples(self, recipe: Any) -> Sequence[Any]:
        """Examples with answers, in the order of the split."""
        ...

    def evaluation_size(self, recipe: Any) -> int:
        """Samples of the evaluation split."""
        ...

    def require_oracle(self, recipe: Any) -> None:
        """Raise UserError where the data has no words for its images, so that the oracle cannot be asked."""
        ...

    def evaluate(self, model: Any, recipe: Any, preprocessor: Any, on_progress: OnProgress) -> Evaluation:
        """Decode and score the evaluation split with a tuned model."""
        ...

    def evaluate_oracle(self, model: Any, recipe: Any, preprocessor: Any, on_progress: OnProgress) -> Evaluation:
        """The same with every image told in words; raises as `require_oracle`."""
        ...


def data_section(data: DataSet[Any], options: DataOptions, prompt_format: str | None = None) -> Data:
    """The record's data section: which set was read, and what of it.

    Args:
        data: the set, its images checked.
        options: how it was read.
        prompt_format: of the recipe; None: the task has one prompt only.
    """
    return Data(
        name=data.name,
        data_hash=data.data_hash,
        files=dict(data.sha256),
        split_sizes=data.used_sizes,
        limit=options.limit,
        skipped_images=len(data.skipped),
        prompt_format=prompt_format,
    )


def task_names() -> list[str]:
    """Names of the tasks."""
    return list(_TASKS)


def load_task(name: str, options: DataOptions) -> Task:
    """Read and check a task's data.

    Raises:
        UserError: no such task, or the data does not hold.
    """
    if name not in _TASKS:
        raise UserError(f"--task {name}: no such task; tasks: {', '.join(_TASKS)}")
    module, _, attribute = _TASKS[name].partition(":")
    task: Task = getattr(importlib.import_module(module), attribute)(options)
    return task
