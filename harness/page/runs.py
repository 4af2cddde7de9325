"""What the page shows of one run: its record field by field, its results and its history."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.records import History, Record, read_history, read_remarks, record_path, sentences_about
from harness.report.parts import Part, parts
from harness.report.selection import hardware

_SIGNIFICANT = 4
"""Digits of the losses that the page contains."""


@dataclass(frozen=True)
class Run:
    """One run as the page shows it.

    Attributes:
        record: its record.
        protocol, hardware: as in the leaderboards.
        parts: the fields of the record.
        remarks: the sentences of `remarks.json` on the run.
        history: its history; None where none was kept.
    """

    record: Record
    protocol: str
    hardware: str
    parts: tuple[Part, ...]
    remarks: tuple[str, ...]
    history: History | None

    @property
    def losses(self) -> dict[str, list[float]] | None:
        """The steps and the mean losses of the history; None where there is none, or where nothing was trained."""
        if self.history is None or not self.history.points:
            return None
        points = self.history.points
        return {"x": [point.step for point in points], "y": [_rounded(point.loss) for point in points]}


def runs(records: Sequence[Record], results_dir: Path) -> list[Run]:
    """Return what the page shows of each run.

    Args:
        records: the records.
        results_dir: their folder, for the histories and the remarks.

    Raises:
        UserError: a history has an error, or the remarks have one.
    """
    remarks = read_remarks(results_dir)
    return [
        Run(
            record,
            record.protocol,
            hardware(record),
            parts(record),
            tuple(sentences_about([record], remarks)),
            read_history(record_path(record, results_dir)),
        )
        for record in records
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT}g}")
