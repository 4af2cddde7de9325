"""ScienceQA's scores: from the choices to the nine columns of the benchmark.

The columns (Lu et al. 2022): NAT, SOC and LAN by subject; TXT for problems with a hint, IMG for problems with an image,
NO for problems with neither (a problem can be in both TXT and IMG); G1-6 and G7-12 by grade; Avg over all problems. An
answer that cannot be read counts as wrong. (If a run asks for it, `harness.evaluation.sampling` replaces such answers
before.)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.data.jsonio import repeated
from harness.data.problem import Problem
from harness.errors import UserError
from harness.evaluation.ids import listing, mismatches
from harness.records import Metric
from harness.stats import binomial_stderr

COLUMNS = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "Avg")
_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
_NEEDS = {"NAT": "subject", "SOC": "subject", "LAN": "subject", "G1-6": "grade", "G7-12": "grade"}


@dataclass(frozen=True, slots=True)
class ScienceQAScores:
    """The scores of a set of answers, each field with one entry per column.

    Attributes:
        metrics: the accuracies in percent, with binomial standard errors. `n` counts the problems that are known to
            belong to the column.
        missing: number of problems whose metadata does not say whether they belong to the column.
        unreadable: number of problems of the column whose answer could not be read; they count as wrong.
    """

    metrics: dict[str, Metric]
    missing: dict[str, int]
    unreadable: dict[str, int]


def columns_of(problem: Problem) -> tuple[str, ...]:
    """Return the columns that a problem counts in, `Avg` included."""
    columns = [_SUBJECTS[problem.subject]] if problem.subject is not None else []
    columns += ["TXT"] * bool(problem.hint) + ["IMG"] * (problem.image is not None)
    columns += ["NO"] * (not problem.hint and problem.image is None)
    if problem.grade is not None:
        columns.append("G1-6" if int(problem.grade.removeprefix("grade")) <= 6 else "G7-12")
    return (*columns, "Avg")


def score_scienceqa(problems: Iterable[Problem], predictions: Mapping[str, int | None]) -> ScienceQAScores:
    """Compute the accuracy in each of the nine columns.

    Args:
        problems: the problems of the split, each once.
        predictions: qid -> index of the choice, or None where the answer could not be read. An index that is none of
            the problem's choices counts as unreadable too.

    Returns:
        The scores. A column is null, with a reason, where some problems do not have the metadata that it needs.

    Raises:
        UserError: a problem is given twice, a problem has no prediction, or a prediction is for an unknown problem. The
            message lists them.
    """
    problems = list(problems)
    _check_ids([problem.qid for problem in problems], predictions)
    n, right, unreadable = ({column: 0 for column in COLUMNS} for _ in range(3))
    for problem in problems:
        choice = predictions[problem.qid]
        readable = choice is not None and 0 <= choice < len(problem.choices)
        for column in columns_of(problem):
            n[column] += 1
            right[column] += choice == problem.answer
            unreadable[column] += not readable
    without = {
        "subject": sum(problem.subject is None for problem in problems),
        "grade": sum(problem.grade is None for problem in problems),
    }
    missing = {column: without[_NEEDS[column]] if column in _NEEDS else 0 for column in COLUMNS}
    metrics = {column: _accuracy(column, right[column], n[column], missing[column]) for column in COLUMNS}
    return ScienceQAScores(metrics, missing, unreadable)


def _accuracy(column: str, right: int, n: int, missing: int) -> Metric:
    if missing:
        return Metric(value=None, n=n, reason=f"{missing} problems have no {_NEEDS[column]}")
    if n == 0:
        return Metric(value=None, n=0, reason="no problem in this column")
    value = 100 * right / n
    return Metric(value=value, n=n, stderr=binomial_stderr(value, n))


def _check_ids(qids: Sequence[str], predictions: Mapping[str, int | None]) -> None:
    twice = repeated(qids)
    complaints = [f"problems given twice: {listing(twice)}"] if twice else []
    complaints += mismatches(qids, predictions, "problems", "prediction")
    if complaints:
        raise UserError("; ".join(complaints))
