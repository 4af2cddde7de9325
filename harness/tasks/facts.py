"""The fixed properties of each task: its module, its tables in the paper, its metrics, and how to tell right answers.

A task is registered by its entry in `TASKS`. This module imports no torch, so that tables can be made from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import UserError
from harness.evaluation.scienceqa_metrics import COLUMNS


@dataclass(frozen=True, slots=True)
class AnswerKeys:
    """The keys of a prediction row that say whether the answer is right.

    Attributes:
        sample: key of the sample's id.
        given: key of the model's answer.
        expected: key of the correct answer; the answer is right where the two are equal.
        columns: key of the list of columns that the sample counts in. Predictions that were saved before the columns
            were kept do not have it.
    """

    sample: str
    given: str
    expected: str
    columns: str


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """The facts of one task.

    Attributes:
        implementation: the task's class as `module:Class`, see `harness.tasks.contract.Task`.
        table: number of the paper's table that compares methods on this task.
        ablation_table: number of the paper's table of ablations; None where the paper has none.
        columns: names of the metrics that a run records, in the order of the tables.
        headline: the few columns that are shown where space is short; the last one summarises a run best.
        partitions: groups of columns that split all problems among them, so that each problem counts in one column of a
            group.
        answers: how to tell right answers in the predictions; None if answers are not simply right or wrong.
    """

    implementation: str
    table: int
    ablation_table: int | None
    columns: tuple[str, ...]
    headline: tuple[str, ...]
    partitions: tuple[tuple[str, ...], ...]
    answers: AnswerKeys | None

    @property
    def summary(self) -> str:
        """The one column that summarises a run best."""
        return self.headline[-1]


TASKS: Mapping[str, TaskFacts] = {
    "scienceqa": TaskFacts(
        implementation="harness.tasks.scienceqa:ScienceQATask",
        table=1,
        ablation_table=4,
        columns=COLUMNS,
        headline=("IMG", "Avg"),
        partitions=(("NAT", "SOC", "LAN"), ("G1-6", "G7-12")),
        answers=AnswerKeys(sample="qid", given="choice", expected="gold", columns="columns"),
    ),
    # METEOR, ROUGE-L and SPICE take long; `score coco` computes them from the saved captions of a run.
    "coco": TaskFacts(
        implementation="harness.tasks.coco:CocoTask",
        table=3,
        ablation_table=None,
        columns=("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr"),
        headline=("BLEU-4", "CIDEr"),
        partitions=(),
        answers=None,
    ),
}
"""Task name -> facts."""


def task_facts(name: str) -> TaskFacts:
    """Return the facts of a task.

    Raises:
        UserError: there is no task of this name.
    """
    if name not in TASKS:
        raise UserError(f"--task {name}: no such task; choose one of {', '.join(sorted(TASKS))}")
    return TASKS[name]
