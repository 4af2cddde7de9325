"""Accuracy by category on the picture questions of the small world (`harness.data.mini`), from saved predictions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

from harness.data.mini.build import NAME, Item, file_text, record, sample_items
from harness.data.problem import Problem, parse_problem
from harness.errors import UserError
from harness.escape import markdown
from harness.evaluation.ids import listing
from harness.evaluation.score_scienceqa import read_predictions
from harness.records import Record, predictions_path, record_path, remarks_about
from harness.report.paper import Column
from harness.report.render import grid
from harness.report.rows import Board, Cell
from harness.report.selection import unread_note
from harness.report.tables import leaderboard
from harness.stats import mean, sample_std
from harness.tasks.facts import TASKS

_TABLE = TASKS["scienceqa"].table
MAPS = "Maps"
"""Category of questions about positions."""
_HEAD = f"""\
The table shows the accuracy on each category of picture questions under the uniform protocol, as mean ± sample standard
deviation over seeds. It is computed from the predictions of the runs. Questions of the category {MAPS} ask where things
are. The CLS tokens and the patches of the tiny CLIP model both encode that ([model
card](../harness/assets/tiny/README.md)). The last column is the accuracy on all other picture questions.
"""


def breakdown_text(records: Sequence[Record], results_dir: Path) -> str:
    """Return the rows of Table 1 on the small world, with one column per category of picture question.

    A row has no values where the predictions of one of its runs were not saved.

    Args:
        records: the records of the results folder. Only those on the small world as it is built today are used.
        results_dir: the results folder, for the predictions.

    Returns:
        One table per model, in markdown, with the share of its answers that could not be read where there are any;
        empty where there is no such record.

    Raises:
        UserError: a file of predictions cannot be read, is incomplete, or has other gold answers.
    """
    mini = [run for run in records if run.data.name == NAME and run.data.files.get("problems.json") == _world_sha256()]
    parts = []
    for model in sorted({run.model for run in mini}):
        board = leaderboard(mini, _TABLE, model)
        rows = [replace(row, metrics=_cells(row.runs, results_dir)) for row in board.rows if row.seeds]
        if rows:
            plan = board.layout.model_copy(update={"columns": _columns()})
            runs = [run for row in rows for run in row.runs]
            unread = [f"Over all questions, not only those of the table. {note}" for note in unread_note(runs)]
            notes = [*unread, *remarks_about(runs, results_dir)]
            table = grid(Board(board.table, plan, tuple(rows), ()), "github")
            parts.append("\n\n".join([table, *(f"- {markdown(note)}" for note in notes)]))
    return f"{_HEAD}\n" + "\n\n".join(parts) + "\n" if parts else ""


@cache
def _items() -> list[Item]:
    return sample_items(0)


@cache
def _world_sha256() -> str:
    """Return the SHA-256 of the small world's `problems.json`."""
    return sha256(file_text({item.qid: record(item) for item in _items()}).encode()).hexdigest()


@cache
def _categories() -> Mapping[str, tuple[Problem, ...]]:
    """Return the picture questions of the test split by column: one per category, and one for all but `MAPS`."""
    found: dict[str, list[Problem]] = defaultdict(list)
    for item in _items():
        if item.split == "test" and item.kind.mode == "image":
            found[item.kind.category].append(parse_problem(item.qid, record(item), item.split, NAME))
    others = [problem for category, problems in found.items() if category != MAPS for problem in problems]
    return {name: tuple(problems) for name, problems in {**found, f"IMG w/o {MAPS}": others}.items()}


def _columns() -> tuple[Column, ...]:
    return tuple(Column(key=name, header=f"{name} ({len(members)})") for name, members in _categories().items())


def _cells(runs: Iterable[Record], results_dir: Path) -> dict[str, Cell]:
    """Return the cells of one row by column; all cells are empty if a run of the row has no saved predictions."""
    columns = _categories()
    problems = {problem.qid: problem for members in columns.values() for problem in members}
    values: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        path = predictions_path(record_path(run, results_dir))
        if not path.exists():
            return {name: Cell() for name in columns}
        answers = read_predictions(path, problems)
        if absent := [qid for qid in problems if qid not in answers]:
            raise UserError(f"{path}: no prediction for {listing(absent)}; repeat the run with --force")
        for name, members in columns.items():
            right = sum(answers[problem.qid] == problem.answer for problem in members)
            values[name].append(100 * right / len(members))
    return {name: Cell(mean(values[name]), sample_std(values[name]), len(members)) for name, members in columns.items()}
