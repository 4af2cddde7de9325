"""What the texts of all cost commands share: the choice between two formats, and the look of a table."""

from collections.abc import Sequence

from harness.errors import UserError
from harness.escape import text_table


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
