"""What the page shows of one run: its record field by field, its results and its history."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records import History, Record, read_history, record_path
from harness.report.selection import hardware

_SIGNIFICANT = 4
"""Digits of the losses that the page contains."""


@dataclass(frozen=True)
class Part:
    """A part of a record: its heading, and its fields as (path, value)."""

    title: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Run:
    """One run as the page shows it.

    Attributes:
        record: its record.
        protocol, hardware: as in the leaderboards.
        parts: the fields of the record.
        history: its history; None where none was kept.
    """

    record: Record
    protocol: str
    hardware: str
    parts: tuple[Part, ...]
    history: History | None

    @property
    def losses(self) -> dict[str, list[float]] | None:
        """The steps and the mean losses of the history; None where there is none, or where nothing was trained."""
        if self.history is None or not self.history.points:
            return None
        points = self.history.points
        return {"x": [point.step for point in points], "y": [_rounded(point.loss) for point in points]}


_PARTS = {
    "Settings": ("config", "config_hash", "tuning", "micro_batch", "steps", "epochs"),
    "Results": ("parse_failures", "truncated", "loss", "failed_step", "missing"),
    "Parameters": ("parameters",),
    "Times, energy and memory": ("times_s", "energy_joules", "peak_memory_bytes", "speed"),
    "Versions and hardware": ("environment", "git", "created", "schema_version"),
    "Data and backbone": ("data", "backbone"),
}
"""Heading -> the fields of a record below it. The page shows metrics and samples in tables of their own."""


def runs(records: Sequence[Record], results_dir: Path) -> list[Run]:
    """Return what the page shows of each run.

    Args:
        records: the records.
        results_dir: their folder, for the histories.

    Raises:
        UserError: a history has an error.
    """
    return [
        Run(record, record.protocol, hardware(record), _parts(record), read_history(record_path(record, results_dir)))
        for record in records
    ]


def _parts(record: Record) -> tuple[Part, ...]:
    content = record.model_dump(mode="json")
    parts = []
    for title, names in _PARTS.items():
        fields = [pair for name in names for pair in _fields(name, content[name])]
        if fields:
            parts.append(Part(title, tuple(fields)))
    return tuple(parts)


def _fields(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield every value below a field with its path; fields that are null are left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _fields(f"{path}.{name}", inner)
    elif isinstance(value, list):
        yield path, ", ".join(map(str, value))
    elif isinstance(value, float):
        yield path, f"{value:.6g}"
    elif value is not None:
        yield path, str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT}g}")
