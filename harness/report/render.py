"""Render a board, which is one table, as text: markdown, LaTeX and HTML with tabulate, CSV with pandas, and JSON."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from harness.errors import UserError
from harness.escape import csv_cell, html, latex_comment, markdown, text_table
from harness.report.paper import Column
from harness.report.rows import Board, Cell, Rank, TableRow

ABSENT = "n/a"
MARKS: Mapping[Rank | None, str] = {"best": "best", "tied": "a", "untested": "?"}
"""Rank -> its mark in a printed table; the other ranks have none. `harness.report.ranking` explains the marks."""


def render(board: Board, format: str) -> str:
    """Return a board as text that ends in a newline.

    Args:
        board: the board.
        format: markdown, latex, csv, json or html. Values keep their full precision in csv and json.

    Raises:
        UserError: there is no such format.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: there is no such format; choose one of {', '.join(FORMATS)}")
    return FORMATS[format](board).rstrip("\n") + "\n"


def _markdown(board: Board) -> str:
    notes = "".join(f"\n- {markdown(note)}" for note in _notes(board))
    return f"**{_title(board)}**\n\n{grid(board, 'github')}\n{notes}"


def _latex(board: Board) -> str:
    notes = "".join(f"\n{latex_comment(note)}" for note in [_title(board), *_notes(board)])
    return grid(board, "latex_booktabs") + notes


def _html(board: Board) -> str:
    notes = "".join(f"<li>{html(note)}</li>\n" for note in _notes(board))
    return f"<h2>{html(_title(board))}</h2>\n{grid(board, 'html')}\n<ul>\n{notes}</ul>"


def _csv(board: Board) -> str:
    records = []
    for row in board.rows:
        flat: dict[str, Any] = {**_identity(row, board), "seeds": " ".join(map(str, row.seeds))}
        for key, cell in row.metrics.items():
            flat |= {
                key: cell.value,
                f"{key}_std": cell.std,
                f"{key}_n": cell.n,
                f"{key}_paper": cell.paper,
                f"{key}_difference": cell.difference,
                f"{key}_rank": cell.rank,
            }
        records.append({key: csv_cell(value) for key, value in flat.items()})
    # dtype=object keeps counts integers; a missing count would turn the column into floats.
    return str(pd.DataFrame(records, dtype=object).to_csv(index=False))


def _json(board: Board) -> str:
    rows = [
        _identity(row, board)
        | {
            "seeds": list(row.seeds),
            "metrics": {
                key: {"value": cell.value, "std": cell.std, "n": cell.n, "paper": cell.paper, "rank": cell.rank}
                for key, cell in row.metrics.items()
            },
        }
        for row in board.rows
    ]
    return json.dumps(rows, indent=2, allow_nan=False)


FORMATS: Mapping[str, Callable[[Board], str]] = {
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
    "html": _html,
}


def _identity(row: TableRow, board: Board) -> dict[str, Any]:
    return {
        "table": row.table,
        "name": row.name,
        "method": row.method,
        "variant": row.variant,
        "model": row.model,
        "llm": row.llm,
        "task": row.task,
        "protocol": board.protocol if board.layout.has_protocol else None,
        "trainable": row.trainable,
        "paper_trainable": row.paper_trainable,
    }


def grid(board: Board, style: str) -> str:
    """Return the rows of a board without title and notes, in one of tabulate's styles."""
    headers = ["Method", "Trainable", "LLM", "Seeds", *(column.title for column in board.layout.columns)]
    body = [
        [
            row.name,
            _trainable(row),
            row.llm or "-",
            str(len(row.seeds)),
            *(cell_text(row.metrics[column.key], column) for column in board.layout.columns),
        ]
        for row in board.rows
    ]
    sides = ("left", "right", "left", *("right" for _ in headers[3:]))
    return text_table(body, headers, sides, style)


def cell_text(cell: Cell, column: Column) -> str:
    """Return a cell as text: mean ± std, mark of its rank / paper's value (difference).

    For example `93.10 ± 0.21 a / 93.54 (-0.44)`; the marks are in `MARKS`.
    """
    digits = column.digits
    text = ABSENT if cell.value is None else f"{cell.value:.{digits}f}"
    if cell.std is not None:
        text += f" ± {cell.std:.{digits}f}"
    if mark := MARKS.get(cell.rank):
        text += f" {mark}"
    if cell.paper is not None:
        text += f" / {cell.paper:.{digits}f}"
    if cell.difference is not None:
        text += f" ({cell.difference:+.{digits}f})"
    return text


def _trainable(row: TableRow) -> str:
    text = ABSENT if row.trainable is None else f"{row.trainable:,}"
    return text if row.paper_trainable is None else f"{text} / {row.paper_trainable}"


def _title(board: Board) -> str:
    protocol = f", {board.protocol} protocol" if board.layout.has_protocol else ""
    return f"Table {board.table}. {board.layout.title}{protocol}"


def _notes(board: Board) -> list[str]:
    """Return how to read the cells, then the notes of the board."""
    cells = "Cells: the measured mean ± the sample standard deviation over seeds"
    cells += ", then / the paper's value (difference)." if board.has_paper else "."
    if board.has_paper and board.layout.has_protocol and board.protocol == "uniform":
        cells += " Each of the paper's values was made by the protocol of its own method, see docs/protocols.md."
    return [
        f"{cells} {ABSENT}: there is no record with this value.",
        "Trainable: number of trainable parameters as the published code counts them, including parameters that it "
        "registers but never uses.",
        *board.notes,
    ]
