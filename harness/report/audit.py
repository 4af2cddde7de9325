"""The audit: whether accuracies can be true by arithmetic alone, those that the paper prints and those of our records.

An accuracy is a share of whole numbers: of `n` problems, `k` were answered correctly, so only some values are possible.
And where columns split all problems among them, such as the three subjects, their mean weighted by their sizes is the
accuracy over all problems.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.escape import markdown, text_table
from harness.numbers import signed
from harness.records import Record, read_records
from harness.report.paper import Disagreement, PaperRow, disagreements, layout, load_paper
from harness.tasks.facts import TASKS, TaskFacts

PRINTED_TOLERANCE = 0.005
"""Half a unit of the last digit of a printed accuracy, in percent."""
RECORD_TOLERANCE = 1e-9
"""How far an accuracy of a record may be from a possible one, in percent. Records are not rounded."""
_MOST_PROBLEMS = 10**12
_FINE = "Every accuracy is a whole number of right answers, and all columns agree with the accuracy over all problems."


@dataclass(frozen=True)
class CellAudit:
    """One accuracy.

    Attributes:
        value: the accuracy in percent.
        n: number of problems.
        right: the number of right answers that gives the accuracy; None where no whole number does.
        possible: the two possible accuracies around it; both are the same where it is exactly possible.
    """

    value: float
    n: int
    right: int | None
    possible: tuple[float, float]


@dataclass(frozen=True)
class MeanAudit:
    """The accuracy over all problems, computed from columns that split them.

    Attributes:
        columns: the columns.
        mean: their mean in percent, weighted by their sizes.
        difference: the mean minus the accuracy that is stated over all problems.
        agrees: whether rounding explains the difference.
    """

    columns: tuple[str, ...]
    mean: float
    difference: float
    agrees: bool


@dataclass(frozen=True)
class RowAudit:
    """The accuracies of one row of a table, or of one record.

    Attributes:
        cells: column -> audit of its accuracy.
        means: one entry for each way in which the columns split all problems.
    """

    cells: Mapping[str, CellAudit]
    means: tuple[MeanAudit, ...]

    @property
    def agrees(self) -> bool:
        """Whether every accuracy is possible and every mean agrees."""
        return all(cell.right is not None for cell in self.cells.values()) and all(mean.agrees for mean in self.means)


@dataclass(frozen=True)
class PaperAudit:
    """The audit of one printed row, and the ids of the disagreements in paper.toml that are about this row."""

    row: PaperRow
    found: RowAudit
    listed: tuple[str, ...]


def audit_row(values: Mapping[str, float], sizes: Mapping[str, int], facts: TaskFacts, tolerance: float) -> RowAudit:
    """Audit the accuracies of one row.

    Args:
        values: column -> accuracy in percent.
        sizes: column -> number of problems, at least 1. A column without a size is left out.
        facts: the task, which says which columns split all problems.
        tolerance: how far a stated accuracy may be from the true one, in percent.
    """
    cells = {name: _cell(value, sizes[name], tolerance) for name, value in values.items() if name in sizes}
    whole, means = cells.get(facts.summary), []
    for columns in facts.partitions:
        if whole is not None and cells.keys() >= set(columns):
            mean = sum(cells[name].value * cells[name].n for name in columns) / whole.n
            difference = mean - whole.value
            # Both the mean and the stated accuracy may be off by the tolerance.
            means.append(MeanAudit(columns, mean, difference, abs(difference) <= 2 * tolerance + 1e-9))
    return RowAudit(cells, tuple(means))


def _cell(value: float, n: int, tolerance: float) -> CellAudit:
    share = value * n / 100
    nearest = round(share)
    right = nearest if abs(100 * nearest / n - value) <= tolerance + 1e-9 else None
    return CellAudit(value, n, right, (100 * math.floor(share) / n, 100 * math.ceil(share) / n))


def audit_paper() -> list[PaperAudit]:
    """Return the audits of all rows of the paper's tables that print accuracies on an official test split."""
    sizes, found = load_paper().official_columns, []
    for row in load_paper().rows:
        plan = layout(row.table)
        if plan.task not in sizes:
            continue
        audit = audit_row(row.values, sizes[plan.task], TASKS[plan.task], PRINTED_TOLERANCE)
        if audit.cells:
            found.append(PaperAudit(row, audit, tuple(item.id for item in disagreements() if _is_about(item, row))))
    return found


def _is_about(item: Disagreement, row: PaperRow) -> bool:
    about = item.row
    return about is not None and (about.table, about.name, about.model) == (row.table, row.name, row.model)


def audit_records(records: Iterable[Record]) -> dict[str, RowAudit]:
    """Return the audits of all completed records whose metrics are accuracies, by run id.

    Raises:
        UserError: a record states an accuracy over no problem, or one that is not from 0 to 100.
    """
    found = {}
    for record in records:
        facts = TASKS.get(record.task)
        if facts is None or facts.answers is None or record.status != "completed":
            continue
        values = {name: metric.value for name, metric in record.metrics.items() if metric.value is not None}
        sizes = {name: record.metrics[name].n for name in values}
        for name, value in values.items():
            if not 0 < sizes[name] <= _MOST_PROBLEMS or not -RECORD_TOLERANCE <= value <= 100 + RECORD_TOLERANCE:
                raise UserError(
                    f"{record.run_id}: metrics.{name}: {value:g} % of {sizes[name]} problems is no accuracy; "
                    "repeat the run with --force"
                )
        if values:
            found[record.run_id] = audit_row(values, sizes, facts, RECORD_TOLERANCE)
    return found


def audit_text(results_dir: Path, format: str) -> str:
    """Return the audit of the paper, its known disagreements, and the audit of the records in a folder.

    Args:
        results_dir: the results folder.
        format: `json`, which has every accuracy; anything else gives tables in markdown, of records only those that
            cannot be true.

    Raises:
        UserError: a record has an error.
    """
    paper, records = audit_paper(), audit_records(read_records(results_dir))
    if format == "json":
        return json.dumps(_as_json(paper, records), indent=2)
    return "\n".join([_paper_text(paper), _disagreements_text(), _records_text(records, results_dir)]).rstrip("\n")


def _as_json(paper: Sequence[PaperAudit], records: Mapping[str, RowAudit]) -> dict[str, Any]:
    return {
        "paper": [
            {
                "table": item.row.table,
                "name": item.row.name,
                "model": item.row.model,
                "agrees": item.found.agrees,
                **asdict(item.found),
                "listed": item.listed,
            }
            for item in paper
        ],
        "disagreements": [item.model_dump(mode="json") for item in disagreements()],
        "records": [{"run_id": name, "agrees": row.agrees, **asdict(row)} for name, row in records.items()],
    }


_PAPER_HEAD = """\
## The paper's accuracies

Each printed accuracy is checked against the number of problems of its column in the official test split: is it a whole
number of right answers, rounded? The possible values around it are in brackets where it is not. The other columns
average the subjects and the grades, weighted by their sizes; the difference to the printed Avg is in brackets where
rounding does not explain it. The last column names the entry about this row among the disagreements below.
"""


def _paper_text(paper: Sequence[PaperAudit]) -> str:
    partitions = dict.fromkeys(mean.columns for item in paper for mean in item.found.means)
    heads = ("Table", "Row", "LLM", "Impossible", *(f"Mean of {', '.join(c)}" for c in partitions), "Listed")
    body = []
    for item in paper:
        means = {mean.columns: _mean_text(mean) for mean in item.found.means}
        body.append(
            (
                str(item.row.table),
                item.row.name,
                item.row.llm or "-",
                _impossible_text(item.found, 2),
                *(means.get(columns, "-") for columns in partitions),
                ", ".join(item.listed) or "-",
            )
        )
    return f"{_PAPER_HEAD}\n{_grid(body, heads)}"


def _disagreements_text() -> str:
    body = [(item.id, item.says, item.against, item.taken) for item in disagreements()]
    return f"## Known disagreements\n\n{_grid(body, ('Id', 'The paper says', 'Against it', 'Taken here'))}"


def _records_text(records: Mapping[str, RowAudit], results_dir: Path) -> str:
    head = f"## Records in {markdown(str(results_dir))}\n\nRecords with accuracies: {len(records)}."
    wrong = {name: row for name, row in records.items() if not row.agrees}
    if not wrong:
        return f"{head} {_FINE}\n" if records else f"{head}\n"
    body = [(name, _impossible_text(row, 6), _differing_text(row)) for name, row in wrong.items()]
    heads = ("Record", "Impossible", "Mean that differs from the accuracy over all problems")
    return f"{head} These cannot be true:\n\n{_grid(body, heads)}"


def _impossible_text(row: RowAudit, digits: int) -> str:
    return ", ".join(_impossible(row, digits)) or "-"


def _impossible(row: RowAudit, digits: int) -> Iterator[str]:
    for name, cell in row.cells.items():
        if cell.right is None:
            below, above = cell.possible
            yield f"{name} {cell.value:.{digits}f} ({below:.{digits}f} or {above:.{digits}f})"


def _differing_text(row: RowAudit) -> str:
    return ", ".join(f"{', '.join(mean.columns)}: {_mean_text(mean)}" for mean in row.means if not mean.agrees) or "-"


def _mean_text(mean: MeanAudit) -> str:
    return f"{mean.mean:.2f}" if mean.agrees else f"{mean.mean:.2f} ({signed(mean.difference)})"


def _grid(body: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return text_table(body, headers) + "\n"
