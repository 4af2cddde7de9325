"""Which picture questions of the small world a method answers: accuracy by category, from the saved predictions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

from harness.data.mini.build import NAME, Item, file_text, record, sample_items
from harness.data.problem import Problem, parse_problem
from harness.errors import UserError
from harness.evaluation.ids import listing
from harness.evaluation.score_scienceqa import read_predictions
from harness.records import Record, predictions_path, record_path
from harness.report.paper import Column
from harness.report.render import grid
from harness.report.rows import Board, Cell
from harness.report.selection import select
from harness.report.tables import leaderboard
from harness.stats import mean, sample_std
from harness.tasks.facts import TASKS

_TABLE = TASKS["scienceqa"].table
UNTOLD = "Maps"
"""Category of the questions that ask where things are; the tiny CLIP's CLS tokens hardly tell."""
_HEAD = f"""\
Accuracy on the picture questions by category, mean ± sample standard deviation over seeds, from the runs' predictions.
{UNTOLD} asks where things are. The tiny CLIP's CLS tokens hardly tell that
([model card](../harness/assets/tiny/README.md)): a method that reads nothing else of a picture loses these questions to
the backbone, unless its adapters inside CLIP bring the place there. The last column is IMG without them.
"""


def breakdown_text(records: Sequence[Record], results_dir: Path) -> str:
    """The rows of Table 1 on the small world, with a column for each category of picture question.

    Empty where no record is of the small world as it is built today; a row without values where a run's predictions are
    not saved.

    Raises:
        UserError: predictions that cannot be read, that are not all there, or whose gold answers are others.
    """
    mini = [run for run in records if run.data.name == NAME and run.data.files.get("problems.json") == _world_sha256()]
    parts = []
    for model in sorted({run.model for run in mini}):
        board = leaderboard(mini, _TABLE, model)
        groups = select(mini, _TABLE, board.layout).groups
        rows = [
            replace(row, metrics=_cells(groups.get((row.method or "", row.variant, model), ()), results_dir))
            for row in board.rows
            if row.seeds
        ]
        if rows:
            plan = board.layout.model_copy(update={"columns": _columns()})
            parts.append(grid(Board(board.table, plan, tuple(rows), ()), "github"))
    return "\n".join([_HEAD, *parts]) + "\n" if parts else ""


@cache
def _items() -> list[Item]:
    return sample_items(0)


@cache
def _world_sha256() -> str:
    """Of its `problems.json`."""
    return sha256(file_text({item.qid: record(item) for item in _items()}).encode()).hexdigest()


@cache
def _categories() -> Mapping[str, tuple[Problem, ...]]:
    """Column -> its problems of the test split."""
    found: dict[str, list[Problem]] = defaultdict(list)
    for item in _items():
        if item.split == "test" and item.kind.mode == "image":
            found[item.kind.category].append(parse_problem(item.qid, record(item), item.split, NAME))
    told = [problem for category, problems in found.items() if category != UNTOLD for problem in problems]
    return {name: tuple(problems) for name, problems in {**found, f"IMG w/o {UNTOLD}": told}.items()}


def _columns() -> tuple[Column, ...]:
    return tuple(Column(key=name, header=f"{name} ({len(members)})") for name, members in _categories().items())


def _cells(runs: Iterable[Record], results_dir: Path) -> dict[str, Cell]:
    """Mean over the runs; no value where one of them has no predictions saved."""
    columns = _categories()
    problems = {problem.qid: problem for members in columns.values() for problem in members}
    values: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        path = predictions_path(record_path(run, results_dir))
        if not path.exists():
            return {name: Cell() for name in columns}
        answers = read_predictions(path, problems)
        if absent := [qid for qid in problems if qid not in answers]:
            raise UserError(f"{path}: no prediction for {listing(absent)}; make the run again with --force")
        for name, members in columns.items():
            right = sum(answers[problem.qid] == problem.answer for problem in members)
            values[name].append(100 * right / len(members))
    return {name: Cell(mean(values[name]), sample_std(values[name]), len(members)) for name, members in columns.items()}
