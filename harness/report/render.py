"""Render a board, which is one table, as text: markdown, LaTeX and HTML with tabulate, CSV with pandas, and JSON."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from harness.errors import UserError
from harness.escape import csv_cell, html, latex, latex_comment, markdown, text_table
from harness.numbers import signed
from harness.report.paper import Column
from harness.report.rows import Board, Cell, Rank, TableRow

ABSENT = "n/a"
TRAINABLE = "Trainable"
"""Heading of the number of trainable parameters."""
PREAMBLE = r"\usepackage{booktabs,graphicx}"
"""What a document in LaTeX needs before it takes a table."""
_CAPTION_ABOVE = r"\setlength{\abovecaptionskip}{0pt}\setlength{\belowcaptionskip}{6pt}"
"""The space is below the caption, because it stands above the table."""
STYLE = (
    "body{font:16px/1.4 sans-serif;margin:2rem}table{border-collapse:collapse}"
    "td,th{padding:.25em .6em;border-bottom:1px solid #ccc}"
)
"""The look of a table in HTML."""
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
    notes = "".join(f"\n- {markdown(note)}" for note in board_notes(board))
    return f"**{board_title(board)}**\n\n{grid(board, 'github')}\n{notes}"


def _latex(board: Board) -> str:
    """Return a float that needs the package booktabs, with caption, label, and the notes as comments."""
    notes = "".join(f"\n{latex_comment(note)}" for note in board_notes(board))
    caption = f"{_subject(board)}. Table {board.table} of the paper"  # a document counts its tables itself
    return (
        f"{latex_comment('needs: ' + PREAMBLE)}\n\\begin{{table*}}[t]\n\\centering\n{_CAPTION_ABOVE}\n"
        f"\\caption{{{latex(caption)}}}\n\\label{{{label(board)}}}\n"
        f"\\resizebox{{\\linewidth}}{{!}}{{%\n{grid(board, 'latex_booktabs')}%\n}}\n\\end{{table*}}{notes}"
    )


def label(board: Board) -> str:
    """Return the label of a board in LaTeX: `tab:table1-uniform`, or of one model `tab:table1-uniform-tiny`."""
    protocol = f"-{board.protocol}" if board.layout.has_protocol else ""
    return f"tab:table{board.table}{protocol}{label_of_model(row.model for row in board.rows)}"


def label_of_model(models: Iterable[str | None]) -> str:
    """Return the end of a label in LaTeX that names the model of a table's rows; empty where there are several.

    Args:
        models: the model of each row; None where a row has none.
    """
    known = {model for model in models if model is not None}
    return "-" + re.sub(r"[^A-Za-z0-9.]+", "-", known.pop()) if len(known) == 1 else ""


def _html(board: Board) -> str:
    """Return a whole document, in which the best value of each column is bold."""
    notes = "".join(f"<li>{html(note)}</li>\n" for note in board_notes(board))
    mark = html(str(MARKS["best"]))
    # A mark stands between a value, with or without a deviation, and the end of its cell or the paper's value.
    table = re.sub(rf">\s*([\d.,]+(?: ± [\d.]+)?) {mark}(?=[ <])", r"><strong>\1</strong> " + mark, grid(board, "html"))
    return html_document(board_title(board), f"{table}\n<ul>\n{notes}</ul>")


def html_document(title: str, body: str) -> str:
    """Return a whole document in HTML.

    Args:
        title: its title and heading, as plain text.
        body: what follows the heading, in HTML.
    """
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{html(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{html(title)}</h1>\n{body}\n</body>\n</html>"
    )


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
    headers = ["Method", TRAINABLE, "LLM", "Seeds", *(column.title for column in board.layout.columns)]
    body = [
        [
            row.name,
            trainable_text(row),
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
        text += f" ({signed(cell.difference, digits)})"
    return text


def trainable_text(row: TableRow) -> str:
    """Return the number of trainable parameters as text: counted / printed by the paper."""
    text = ABSENT if row.trainable is None else f"{row.trainable:,}"
    return text if row.paper_trainable is None else f"{text} / {row.paper_trainable}"


def board_title(board: Board) -> str:
    """Return the title of a board: number and name of the table, and the protocol."""
    return f"Table {board.table}. {_subject(board)}"


def _subject(board: Board) -> str:
    """Return what a board shows: the name of its table, and the protocol."""
    protocol = f", {board.protocol} protocol" if board.layout.has_protocol else ""
    return f"{board.layout.title}{protocol}"


def board_notes(board: Board, hidden: Collection[str] = ()) -> list[str]:
    """Return how to read the cells, then the notes of the board.

    Args:
        board: the board.
        hidden: titles of the columns that are not shown.
    """
    keys = _shown_keys(board, hidden)
    spread = any(row.metrics[key].std is not None for row in board.rows for key in keys)
    cells = "the measured mean ± the sample standard deviation over seeds" if spread else "the measured value"
    cells = f"Cells: {cells}" + (", then / the paper's value (difference)." if board.has_paper else ".")
    if board.has_paper and board.layout.has_protocol and board.protocol == "uniform":
        cells += " Each of the paper's values was made by the protocol of its own method, see docs/protocols.md."
    return [*([cells] if spread or board.has_paper else []), *legend(board, hidden), *board.notes]


def _shown_keys(board: Board, hidden: Collection[str]) -> list[str]:
    """Return the keys of the columns of values, without those whose title is hidden."""
    return [column.key for column in board.layout.columns if column.title not in hidden]


def legend_of_times(board: Board, hidden: Collection[str] = ()) -> list[str]:
    """Return what ratios of times, those of the paper, and the yardstick mean, as far as they stand in a table.

    Args:
        board: the board.
        hidden: titles of the columns that are not shown.
    """
    ratios = [c for c in board.layout.columns if c.source == "ratio" and c.title not in hidden]
    found = []
    if ratios:
        found.append(
            f"{', '.join(column.title for column in ratios)}: where both were timed in turn, the median of the ratios "
            "of single rounds, which need not be the quotient of the two medians."
        )
    if any(row.metrics[column.key].paper is not None for row in board.rows for column in ratios):
        found.append("The paper prints no ratios: those that stand here as its values are quotients of its times.")
    bare = board.layout.yardstick
    if bare is not None and any(row.method == bare.method for row in board.rows):
        found.append(
            f"{bare.name}: the frozen backbone without a method. In training it does more than a method needs: logits "
            "at all positions, and a backward pass through every block of both towers. So a method may be faster."
        )
    return found


def legend(board: Board, hidden: Collection[str] = ()) -> list[str]:
    """Return what the headings and words of a table mean that stand in it.

    Args:
        board: the board.
        hidden: titles of the columns that are not shown.
    """
    keys = _shown_keys(board, hidden)
    counted = TRAINABLE not in hidden
    absent = any(
        (counted and row.trainable is None) or any(row.metrics[key].value is None for key in keys) for row in board.rows
    )
    meanings = (
        (absent, f"{ABSENT}: there is no record with this value."),
        (
            counted,
            f"{TRAINABLE}: number of trainable parameters as the published code counts them, including parameters "
            "that it registers but never uses.",
        ),
    )
    return [*(text for stands, text in meanings if stands), *legend_of_times(board, hidden)]
