"""The last step of every board: how its values rank, and the remarks on its runs."""

from dataclasses import replace
from pathlib import Path

from harness.records import read_remarks
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
    shown = {run.spec_hash for row in board.rows for run in row.runs}
    remarks = [remark.text for remark in read_remarks(results_dir) if shown & {*remark.runs}]
    board = ranked(board, results_dir)
    return replace(board, notes=(*board.notes, *remarks))
