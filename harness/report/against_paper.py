"""The paper's numbers against the measured ones, cell by cell, with what can be said about each difference."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from harness.errors import UserError
from harness.escape import csv_cell, text_table
from harness.records import Record, read_records
from harness.report.paper import Column, layout
from harness.report.render import ABSENT
from harness.report.rows import Cell, TableRow
from harness.report.tables import leaderboard
from harness.stats import next_run_error

Verdict = Literal["within noise", "off", "other backbone", "not run", "noise unknown"]
_TWO_RUNS = 1.96 * math.sqrt(2)
"""Standard errors of one run that two runs of one population differ by at most, with a probability of 95 %."""
_NOTES = """\
- Difference: measured minus printed. Noise: how far the printed value, which is that of one run, may be from the mean
  of the measured seeds in 95 % of cases if both are runs of the same method: from the variation between the seeds, or,
  with one seed, from the standard errors of two independent runs.
- within noise: the difference is not larger than the noise. off: it is. One cell in twenty is off by chance.
- other backbone: the method was run, but not on the paper's model and data. not run: there is no record that may enter
  the table. noise unknown: there is one seed, and its record has no standard error.
- Protocol: {protocol}. The paper's values were made by the protocol of each method's own code, as far as it is known.
  So under the uniform one, a difference may come from the protocol (docs/protocols.md).
- Rows of the paper that are no method of this benchmark are left out.
"""


@dataclass(frozen=True)
class PaperCell:
    """One number of the paper and what was measured for it.

    Attributes:
        table, name, model, column: where the paper prints it.
        paper: the printed value.
        value: the measured mean over the seeds; None where there is none on this model.
        seeds: number of seeds.
        difference: measured minus printed.
        noise: largest difference that chance explains; None where it is unknown.
        verdict: what follows.
        others: models that the method was run on, where it was not run on this one.
        protocol: the protocol of the runs.
    """

    table: int
    name: str
    model: str | None
    column: str
    paper: float
    value: float | None
    seeds: int
    difference: float | None
    noise: float | None
    verdict: Verdict
    others: tuple[str, ...]
    protocol: str


def against_paper(
    records: Iterable[Record], table: int, model: str | None = None, protocol: str = "uniform"
) -> list[PaperCell]:
    """Return every number that the paper prints for a method of this benchmark, with its verdict.

    Args:
        records: any records.
        table: number of a table of scores.
        model: the preset to show; None shows all of the paper.
        protocol: the protocol of the runs to show.

    Raises:
        UserError: there is no such table, it has times, or the paper has no row for the model.
    """
    plan = layout(table)
    if plan.setting != "data":
        raise UserError(f"--paper: table {table} has times of the paper's machine, not scores; leave --paper out")
    records = [record for record in records if record.protocol == protocol]
    rows = [row for row in leaderboard(records, table, model, protocol).rows if row.method and row.is_printed]
    if not rows:
        raise UserError(f"--model {model}: table {table} of the paper has no row for it; leave --model out")
    cells = []
    for row in rows:
        ran_on = sorted({r.model for r in records if _is_run_of(r, row)} - {str(row.model)})
        for column in plan.columns:
            if row.metrics[column.key].paper is not None:
                cells.append(_cell(row, column, row.metrics[column.key], ran_on, protocol))
    return cells


def _is_run_of(record: Record, row: TableRow) -> bool:
    """Return whether a record has scores of the row's method, on whatever model."""
    same = (record.method, record.variant, record.task) == (row.method, row.variant, row.task)
    return same and record.status == "completed" and any(m.value is not None for m in record.metrics.values())


def _cell(row: TableRow, column: Column, cell: Cell, ran_on: Sequence[str], protocol: str) -> PaperCell:
    assert cell.paper is not None, "only printed cells get here"
    noise = None if cell.value is None else _noise(row, column)
    verdict: Verdict
    if cell.difference is None:
        verdict = "other backbone" if ran_on else "not run"
    elif noise is None:
        verdict = "noise unknown"
    else:
        verdict = "within noise" if abs(cell.difference) <= noise else "off"
    return PaperCell(
        table=row.table,
        name=row.name,
        model=row.model,
        column=column.key,
        paper=cell.paper,
        value=cell.value,
        seeds=len(row.seeds),
        difference=cell.difference,
        noise=noise,
        verdict=verdict,
        others=tuple(ran_on) if verdict == "other backbone" else (),
        protocol=protocol,
    )


def _noise(row: TableRow, column: Column) -> float | None:
    """Return how far the printed value may be from the measured mean by chance."""
    rounding = 0.5 * 10.0**-column.digits
    metrics = [run.metrics[column.key] for run in row.runs]
    if len(metrics) > 1:
        return next_run_error([metric.value for metric in metrics if metric.value is not None]) + rounding
    error = metrics[0].stderr
    return None if error is None else _TWO_RUNS * error + rounding


def against_paper_text(
    results_dir: Path,
    table: int,
    model: str | None,
    format: str,
    protocol: str = "uniform",
    *,
    measured_only: bool = False,
) -> str:
    """Return the paper's numbers against the measured ones as text.

    Args:
        results_dir: the results folder.
        table, model, protocol: see `against_paper`.
        format: markdown, latex, csv, json or html. The notes on the verdicts are below the markdown table only.
        measured_only: in markdown, only say how many numbers have no measurement, instead of showing them.

    Raises:
        UserError: see `against_paper`; or a record has an error.
    """
    cells = against_paper(read_records(results_dir), table, model, protocol)
    return _measured(cells) if measured_only and format == "markdown" else _FORMATS[format](cells)


def _grid(cells: Sequence[PaperCell], style: str) -> str:
    digits = {column.key: column.digits for column in layout(cells[0].table).columns}

    def shown(value: float | None, key: str, sign: str = "") -> str:
        return ABSENT if value is None else f"{value:{sign}.{digits[key]}f}"

    body = [
        (
            cell.name,
            cell.model or "-",
            cell.column,
            shown(cell.paper, cell.column),
            shown(cell.value, cell.column),
            str(cell.seeds),
            shown(cell.difference, cell.column, "+"),
            shown(cell.noise, cell.column),
            _verdict(cell),
        )
        for cell in cells
    ]
    heads = ("Method", "Model", "Column", "Paper", "Measured", "Seeds", "Difference", "Noise", "Verdict")
    sides = (*("left",) * 3, *("right",) * 5, "left")
    return text_table(body, heads, sides, style)


def _markdown(cells: Sequence[PaperCell]) -> str:
    return f"{_title(cells)}\n\n{_grid(cells, 'github')}\n\n{_NOTES.format(protocol=cells[0].protocol)}"


def _measured(cells: Sequence[PaperCell]) -> str:
    """Return the measured cells in markdown, and how many have no measurement, by what is known of them."""
    measured = [cell for cell in cells if cell.value is not None]
    others = Counter(_verdict(cell) for cell in cells if cell.value is None)
    text = _markdown(measured) if measured else f"{_title(cells)}\n\n"
    if others:
        why = ", ".join(f"{verdict}: {count}" for verdict, count in others.items())
        bullet = "- " if measured else ""
        text += f"{bullet}{others.total()} printed numbers have no measurement ({why}). --all shows them.\n"
    return text


def _title(cells: Sequence[PaperCell]) -> str:
    return f"**Table {cells[0].table}, paper against measured. {layout(cells[0].table).title}**"


def _verdict(cell: PaperCell) -> str:
    return f"{cell.verdict} ({', '.join(cell.others)})" if cell.others else cell.verdict


def _csv(cells: Sequence[PaperCell]) -> str:
    flat = [asdict(cell) | {"others": " ".join(cell.others)} for cell in cells]
    rows = [{key: csv_cell(value) for key, value in row.items()} for row in flat]
    return str(pd.DataFrame(rows, dtype=object).to_csv(index=False))


_FORMATS: Mapping[str, Callable[[Sequence[PaperCell]], str]] = {
    "markdown": _markdown,
    "latex": lambda cells: _grid(cells, "latex_booktabs") + "\n",
    "csv": _csv,
    "json": lambda cells: json.dumps([asdict(cell) for cell in cells], indent=2) + "\n",
    "html": lambda cells: _grid(cells, "html") + "\n",
}
