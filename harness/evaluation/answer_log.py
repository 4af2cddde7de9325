"""Answers that are kept batch by batch, so that an interrupted evaluation does not start again.

The log is a file of JSON lines, one per batch: the ids of its samples, what the model said to each, which prompts were
cut, and how long the batch took. A batch is answered again unless its whole line is there, so batches keep their
samples, and the answers are those of an evaluation in one go.
"""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import read_file


class AnswerLog:
    """The log of one evaluation.

    Args:
        path: the file; None keeps nothing.

    Attributes:
        earlier_s: seconds that earlier processes took for the batches that were found.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lines = _read(path) if path is not None else {}
        self.earlier_s = 0.0
        self._since = time.perf_counter()

    def find(self, ids: Sequence[str]) -> tuple[list[Any], list[str]] | None:
        """Return what is known of a batch: a value per sample, and the ids of the cut prompts; None: it is not there.

        Args:
            ids: ids of the batch's samples, in their order.
        """
        line = self._lines.get(tuple(ids))
        if line is None:
            return None
        self.earlier_s += line["seconds"]
        return line["values"], line["cut"]

    def add(self, ids: Sequence[str], values: Sequence[Any], cut: Sequence[str]) -> None:
        """Append a batch.

        Its seconds are those since the batch before or, for the first one, since this object was made.

        Args:
            ids: ids of the batch's samples.
            values: one JSON value per sample.
            cut: ids of the prompts among them that were cut.

        Raises:
            UserError: the line cannot be written.
        """
        if self.path is None:
            return
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        line = json.dumps({"ids": list(ids), "values": list(values), "cut": list(cut), "seconds": seconds})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                # A line that a killed process left unfinished must not swallow this one.
                file.write(f"\n{line}\n")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); make room, and run again") from error


def _read(path: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the whole lines of a log by the ids of their samples; lines that are not whole are passed over."""
    try:
        text = read_file(path).decode("utf-8", errors="replace")
    except OSError:
        return {}
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_whole(entry):
            found[tuple(entry["ids"])] = entry
    return found


def _is_whole(entry: Any) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"ids", "values", "cut", "seconds"}:
        return False
    ids, values, cut, seconds = entry["ids"], entry["values"], entry["cut"], entry["seconds"]
    return (
        isinstance(ids, list)
        and isinstance(values, list)
        and isinstance(cut, list)
        and all(isinstance(name, str) for name in (*ids, *cut))
        and len(values) == len(ids)
        and isinstance(seconds, float)
        and math.isfinite(seconds)
    )
