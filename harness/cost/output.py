"""What the texts of all cost commands share: the choice between two formats, and the look of a table."""

from collections.abc import Sequence

from harness.errors import UserError
from harness.escape import text_table
from harness.terminal import Column, table_lines


def is_json(format: str) -> bool:
    """Return whether a text is wanted as JSON rather than as Markdown.

    Raises:
        UserError: the format is neither `json` nor `markdown`.
    """
    if format not in ("markdown", "json"):
        raise UserError(f"--format {format}: unknown format; choose markdown or json")
    return format == "json"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[object]], sides: str) -> str:
    """Return a Markdown table whose cells are printed as text.

    Args:
        heads: one heading per column.
        rows: one cell per column.
        sides: one letter per column, `l` for a column aligned to the left and `r` for one aligned to the right.
    """
    return text_table(rows, heads, [{"l": "left", "r": "right"}[side] for side in sides])


def shown_table(heads: Sequence[str], rows: Sequence[Sequence[object]], sides: str, width: int) -> str:
    """Return a table for a terminal, ending in a newline; see `markdown_table`.

    Args:
        heads, rows, sides: as in `markdown_table`.
        width: columns of the terminal.
    """
    cells = [[str(row[place]) for row in rows] for place in range(len(heads))]
    columns = [Column(head, own, side == "r") for head, own, side in zip(heads, cells, sides, strict=True)]
    return table_lines(columns, width)


def rounded(number: int) -> str:
    """Return a count with three significant digits and a unit, for reading: `3.88 M`, `13.0 B`, `1.35 T`."""
    value, units = float(number), ["", " k", " M", " B", " T", " P", " E"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    digits = 0 if number < 1000 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}{units[0]}"
