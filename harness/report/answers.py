"""What a run answered to each problem, from its saved predictions, and which columns each problem counts in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.data.jsonio import parse_json_lines
from harness.errors import UserError
from harness.files import read_file
from harness.records import Record, predictions_path, record_path
from harness.tasks.facts import AnswerKeys, TaskFacts, task_facts

_RUN_AGAIN = "repeat the run with --force"
_KEPT = 512
"""Number of runs whose answers are kept in memory: more than one page of results needs."""
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """The answers of one run to N problems.

    Attributes:
        problems: ids of the problems, sorted.
        given: what the run answered to each.
        right_N: whether each was answered correctly.
        columns: column -> whether each problem counts in it.
    """

    problems: tuple[str, ...]
    given: tuple[object, ...]
    right_N: Booleans
    columns: Mapping[str, Booleans]

    def to(self, problems: Sequence[str]) -> "Answers":
        """Return the answers to some of the problems, in the given order."""
        place = {name: index for index, name in enumerate(self.problems)}
        chosen = [place[name] for name in problems]
        columns = {column: members_N[chosen] for column, members_N in self.columns.items()}
        return Answers(tuple(problems), tuple(self.given[i] for i in chosen), self.right_N[chosen], columns)


def read_answers(run: Record, results_dir: Path) -> Answers | None:
    """Return the answers of a run; None where the task has no right answers, or where no predictions are saved.

    Predictions that were saved before rows named their columns tell the column over all problems only.

    Raises:
        UserError: the file cannot be read, a row is incomplete or repeated, or the answers do not give the accuracy of
            the record.
    """
    facts = task_facts(run.task)
    path = predictions_path(record_path(run, results_dir))
    if facts.answers is None or not path.exists():
        return None
    status = path.stat()
    answers = _read(path, status.st_mtime_ns, status.st_size, run.task)
    metric = run.metrics.get(facts.summary)
    accuracy = 100 * float(answers.right_N.mean()) if answers.problems else None
    if metric is not None and metric.value is not None and (accuracy is None or abs(accuracy - metric.value) > 1e-6):
        raise UserError(f"{path}: the answers do not give the {facts.summary} of the record; {_RUN_AGAIN}")
    return answers


@lru_cache(maxsize=_KEPT)
def _read(path: Path, changed: int, size: int, task: str) -> Answers:
    """Read one file; `changed` and `size` make a file that was written again another file."""
    facts = task_facts(task)
    assert facts.answers is not None, "only tasks with right answers get here"
    keys = facts.answers
    try:
        content = read_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_RUN_AGAIN}") from error
    rows: dict[str, dict[str, object]] = {}
    for place, row in parse_json_lines(content, str(path)):
        if not _is_complete(row, keys) or row[keys.sample] in rows:
            raise UserError(
                f"{place}: expected a record with '{keys.sample}', '{keys.given}' and '{keys.expected}', "
                f"each {keys.sample} once; {_RUN_AGAIN}"
            )
        rows[row[keys.sample]] = row
    problems = tuple(sorted(rows))
    right_N = np.array([rows[name][keys.given] == rows[name][keys.expected] for name in problems], dtype=np.bool_)
    given = tuple(rows[name][keys.given] for name in problems)
    return Answers(problems, given, right_N, _columns([rows[name].get(keys.columns) for name in problems], facts))


def _is_complete(row: object, keys: AnswerKeys) -> bool:
    if not isinstance(row, dict) or not {keys.sample, keys.given, keys.expected} <= row.keys():
        return False
    named = row.get(keys.columns, [])
    return isinstance(row[keys.sample], str) and isinstance(named, list) and all(isinstance(n, str) for n in named)


def _columns(named: list[object], facts: TaskFacts) -> dict[str, Booleans]:
    """Return the columns that can be told, from what each row names."""
    everything = {facts.summary: np.ones(len(named), dtype=np.bool_)}
    sets = [set(names) for names in named if isinstance(names, list)]
    if len(sets) < len(named):
        return everything
    members = {column: np.array([column in names for names in sets], dtype=np.bool_) for column in facts.columns}
    return members | everything
