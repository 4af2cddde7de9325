"""The last step of every board: how its values rank, and the remarks on its runs."""

from dataclasses import replace
from pathlib import Path

from harness.records import remarks_about
from harness.report.ranking import ranked
from harness.report.rows import Board


def finished(board: Board, results_dir: Path) -> Board:
    """Return a board with ranks, see `ranked`, and with the remarks on its runs.

    Args:
        board: the board.
        results_dir: the results folder, for the predictions and the remarks.

    Raises:
        UserError: saved predictions or the remarks have an error.
    """
    remarks = remarks_about((run for row in board.rows for run in row.runs), results_dir)
    board = ranked(board, results_dir)
    return replace(board, notes=(*board.notes, *remarks))
