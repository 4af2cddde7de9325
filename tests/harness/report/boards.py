"""Helpers with which the tests of the report look into a board."""

from harness.report.rows import Board, TableRow

ON_MINI = "tiny is on the data set `scienceqa-mini` (3,600 / 500 / 1,000 samples), not on the official one."


def row(board: Board, method: str, variant: str | None = None, model: str = "tiny") -> TableRow:
    """Return the only row of a method."""
    found = [r for r in board.rows if (r.method, r.variant, r.model) == (method, variant, model)]
    assert len(found) == 1
    return found[0]
