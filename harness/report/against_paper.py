"""The paper's numbers against the measured ones, cell by cell, with what can be said about each difference."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from harness.errors import UserError
from harness.escape import csv_cell, latex, latex_comment, markdown, text_table
from harness.numbers import signed
from harness.records import Record, read_records, remarks_about
from harness.report.paper import Column, layout
from harness.report.render import ABSENT, html_document, label_of_model
from harness.report.rows import Cell, TableRow
from harness.report.tables import leaderboard, selection_notes
from harness.stats import next_run_error

Verdict = Literal["within noise", "off", "other backbone", "not run", "noise unknown"]
_TWO_RUNS = 1.96 * math.sqrt(2)
"""Standard errors of one run that two runs of one population differ by at most, with a probability of 95 %."""
_NOTES = """\
- Diff.: measured minus printed. Noise: how far the printed value, which is that of one run, may be from the mean of two
  or more measured seeds in 95 % of cases if all are runs of the same method. With one seed, how much seeds vary is not
  known. Then it is only what the standard errors of two independent runs explain.
- within noise: the difference is not larger than the noise. off: it is, with two seeds or more. Of such cells, one in
  twenty is off by chance. noise unknown: there is one seed, and it has no standard error, or the difference is larger
  than standard errors explain, so more seeds must say whether the variation between them explains it.
- other backbone: the method was run, but not on the paper's model. The model stands in brackets behind what was
  measured on it. Its data are its own, too, so no difference to the printed value is given. not run: there is no record
  that may enter the table.
- Protocol: {protocol}. The paper's values were made by the protocol of each method's own code, as far as it is known.
  So under the uniform one, a difference may come from the protocol (docs/protocols.md).
- Rows of the paper that are no method of this benchmark are left out.
"""


@dataclass(frozen=True)
class Elsewhere:
    """What was measured for a number of the paper on another model than the printed one.

    Attributes:
        value: the mean over the seeds.
        seeds: number of seeds.
    """

    value: float
    seeds: int


@dataclass(frozen=True)
class PaperCell:
    """One number of the paper and what was measured for it.

    Attributes:
        table, name, model, column: where the paper prints it.
        paper: the printed value.
        value: the measured mean over the seeds; None where there is none on this model.
        seeds: number of seeds.
        difference: measured minus printed.
        noise: largest difference that chance explains; with one seed, what the standard errors explain; None where
            there is none.
        verdict: what follows.
        others: model -> what was measured on it, where nothing was measured on the paper's.
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
    others: Mapping[str, Elsewhere]
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
    return _cells(_printed(records, table, model, protocol))


@dataclass(frozen=True)
class _Printed:
    """The rows of one table that the paper prints for a method of this benchmark.

    Attributes:
        table: number of the table.
        rows: the rows, with what was measured on their models.
        measured: every measured row of the table, on whatever model.
        protocol: the protocol of the runs.
    """

    table: int
    rows: tuple[TableRow, ...]
    measured: tuple[TableRow, ...]
    protocol: str

    def others(self, row: TableRow) -> list[TableRow]:
        """Return the measured rows of the same method on other models."""
        same = [other for other in self.measured if (other.method, other.variant) == (row.method, row.variant)]
        return [other for other in same if other.model != row.model]

    def runs(self) -> list[Record]:
        """Return the runs that are shown."""
        shown = [used for row in self.rows for used in ([row] if row.runs else self.others(row))]
        return [run for row in shown for run in row.runs]

    def needs(self, run: Record) -> bool:
        """Return whether a run is, or would be, shown: on the model of a row or, where that has none, on any other."""
        own = [row for row in self.rows if (row.method, row.variant) == (run.method, run.variant)]
        return any(row.model == run.model or not row.runs for row in own)


def _printed(records: Iterable[Record], table: int, model: str | None, protocol: str) -> _Printed:
    """Return the rows of `against_paper`, and raise what it raises."""
    if layout(table).setting != "data":
        raise UserError(f"--paper: table {table} has times of the paper's machine, not scores; leave --paper out")
    every = [row for row in leaderboard(records, table, protocol=protocol).rows if row.method]
    rows = tuple(row for row in every if row.is_printed and model in (None, row.model))
    if not rows:
        raise UserError(f"--model {model}: table {table} of the paper has no row for it; leave --model out")
    return _Printed(table, rows, tuple(row for row in every if row.runs), protocol)


def _cells(printed: _Printed) -> list[PaperCell]:
    return [
        _cell(row, column, row.metrics[column.key], printed)
        for row in printed.rows
        for column in layout(printed.table).columns
        if row.metrics[column.key].paper is not None
    ]


def _cell(row: TableRow, column: Column, cell: Cell, printed: _Printed) -> PaperCell:
    assert cell.paper is not None, "only printed cells get here"
    others = {} if cell.value is not None else _elsewhere(printed.others(row), column)
    noise = None if cell.value is None else _noise(row, column)
    verdict: Verdict
    if cell.difference is None:
        verdict = "other backbone" if others else "not run"
    elif noise is not None and abs(cell.difference) <= noise:
        verdict = "within noise"
    else:
        # Without the variation between seeds, no difference is too large for it.
        verdict = "off" if len(row.seeds) > 1 else "noise unknown"
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
        others=others,
        protocol=printed.protocol,
    )


def _elsewhere(rows: Iterable[TableRow], column: Column) -> dict[str, Elsewhere]:
    """Return what rows of other models have in a column, by model."""
    return {
        str(row.model): Elsewhere(value, len(row.seeds))
        for row in rows
        if (value := row.metrics[column.key].value) is not None
    }


def _noise(row: TableRow, column: Column) -> float | None:
    """Return how far the printed value may be from the measured mean by chance; with one seed, by chance of problems.

    All runs answer the same problems, so the variation between two seeds or more has all of the chance in it.
    """
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
    records = read_records(results_dir)
    printed = _printed(records, table, model, protocol)
    cells = _cells(printed)
    if format != "markdown":
        return _FORMATS[format](cells)
    notes = [*selection_notes(records, table, protocol, printed.needs), *remarks_about(printed.runs(), results_dir)]
    return _measured(cells, notes) if measured_only else _markdown(cells, notes)


def _grid(cells: Sequence[PaperCell], style: str) -> str:
    digits = {column.key: column.digits for column in layout(cells[0].table).columns}

    def shown(value: float | None, key: str) -> str:
        return ABSENT if value is None else f"{value:.{digits[key]}f}"

    def measured(cell: PaperCell) -> str:
        others = [f"{shown(other.value, cell.column)} ({model})" for model, other in cell.others.items()]
        return ", ".join(others) or shown(cell.value, cell.column)

    body = [
        (
            cell.name,
            cell.model or "-",
            cell.column,
            shown(cell.paper, cell.column),
            measured(cell),
            ", ".join(str(other.seeds) for other in cell.others.values()) or str(cell.seeds),
            ABSENT if cell.difference is None else signed(cell.difference, digits[cell.column]),
            shown(cell.noise, cell.column),
            cell.verdict,
        )
        for cell in cells
    ]
    # Short heads, so that a row fits into one line of a terminal of 80 columns.
    heads = ("Method", "LLM", "Column", "Paper", "Measured", "Seeds", "Diff.", "Noise", "Verdict")
    sides = (*("left",) * 3, *("right",) * 5, "left")
    return text_table(body, heads, sides, style)


def _markdown(cells: Sequence[PaperCell], notes: Sequence[str]) -> str:
    below = "".join(f"- {markdown(note)}\n" for note in notes)
    return f"**{_title(cells)}**\n\n{_grid(cells, 'github')}\n\n{_NOTES.format(protocol=cells[0].protocol)}{below}"


def _measured(cells: Sequence[PaperCell], notes: Sequence[str]) -> str:
    """Return the cells that were measured, on whatever model, in markdown, and how many were not."""
    measured = [cell for cell in cells if cell.verdict != "not run"]
    text = _markdown(measured, notes) if measured else f"**{_title(cells)}**\n\n"
    if left := len(cells) - len(measured):
        bullet = "- " if measured else ""
        text += f"{bullet}{left} printed numbers have no measurement. --all shows them.\n"
    return text


def _title(cells: Sequence[PaperCell]) -> str:
    return f"Table {cells[0].table}, paper against measured. {layout(cells[0].table).title}"


def _latex(cells: Sequence[PaperCell]) -> str:
    """Return a table over several pages, with caption and label."""
    begin, head, body = re.split(r"\\toprule\n|\\midrule\n", _grid(cells, "latex_booktabs"))
    table, protocol = cells[0].table, cells[0].protocol
    title = f"Paper against measured: {layout(table).title}, {protocol} protocol. Table {table} of the paper"
    label = f"tab:paper{table}-{protocol}{label_of_model(cell.model for cell in cells)}"
    caption = f"\\caption{{{latex(title)}}}\\label{{{label}}}\\\\\n"
    heads = f"\\toprule\n{head}\\midrule\n"
    text = f"{begin}{caption}{heads}\\endfirsthead\n{heads}\\endhead\n{body}".replace("{tabular}", "{longtable}")
    needs = latex_comment(r"needs: \usepackage{booktabs,longtable}")
    return f"{needs}\n{{\\scriptsize\\setlength{{\\tabcolsep}}{{2pt}}\n{text}\n}}\n"


def _csv(cells: Sequence[PaperCell]) -> str:
    flat = [asdict(cell) | {"others": json.dumps(asdict(cell)["others"])} for cell in cells]
    rows = [{key: csv_cell(value) for key, value in row.items()} for row in flat]
    return str(pd.DataFrame(rows, dtype=object).to_csv(index=False))


_FORMATS: Mapping[str, Callable[[Sequence[PaperCell]], str]] = {
    "latex": _latex,
    "csv": _csv,
    "json": lambda cells: json.dumps([asdict(cell) for cell in cells], indent=2) + "\n",
    "html": lambda cells: html_document(_title(cells), _grid(cells, "html")) + "\n",
}
