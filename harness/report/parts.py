"""The fields of a record by subject, as text for a page or a card."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.records import Record


@dataclass(frozen=True)
class Part:
    """A part of a record: its heading, and its fields as (path, value)."""

    title: str
    fields: tuple[tuple[str, str], ...]


_PARTS = {
    "Settings": ("config", "config_hash", "tuning", "micro_batch", "steps", "epochs"),
    "Results": ("parse_failures", "truncated", "loss", "failed_step", "missing"),
    "Parameters": ("parameters",),
    "Times, energy and memory": ("times_s", "energy_joules", "peak_memory_bytes", "speed"),
    "Versions and hardware": ("environment", "git", "created", "schema_version"),
    "Data and backbone": ("data", "backbone"),
}
"""Heading -> the fields of a record below it. Metrics and samples are shown in tables of their own."""


def parts(record: Record) -> tuple[Part, ...]:
    """Return the fields of a record that are not null, by their subject."""
    content = record.model_dump(mode="json")
    found = []
    for title, names in _PARTS.items():
        fields = [pair for name in names for pair in _fields(name, content[name])]
        if fields:
            found.append(Part(title, tuple(fields)))
    return tuple(found)


def _fields(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield every value below a field with its path; fields that are null are left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _fields(f"{path}.{name}", inner)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for number, inner in enumerate(value):
            yield from _fields(f"{path}.{number}", inner)
    elif isinstance(value, list):
        yield path, ", ".join(map(str, value))
    elif isinstance(value, float):
        yield path, f"{value:.6g}"
    elif value is not None:
        yield path, str(value)
