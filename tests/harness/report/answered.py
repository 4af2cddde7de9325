"""Records with saved predictions that agree with them, for tests of comparisons."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from harness.records import Record, write_predictions, write_record
from tests.record_factory import make

PROBLEMS = 40
COLUMNS = {"IMG": range(20), "NO": range(20, PROBLEMS), "Avg": range(PROBLEMS)}
"""Column -> its problems. The other columns of a table have no value."""


def save(
    results: Path, method: str, seed: int, right: Collection[int], named: bool = True, kept: bool = True, **changes: Any
) -> Record:
    """Write a record and its predictions, and return the record.

    Args:
        results: the results folder.
        method, seed: what was run.
        right: the problems that were answered correctly.
        named: whether the predictions name the columns of each problem.
        kept: whether the predictions are saved.
        changes: other fields of the record.
    """
    metrics = {
        name: {"value": 100 * len({*right} & {*asked}) / len(asked), "n": len(asked), "stderr": 1.0}
        for name, asked in COLUMNS.items()
    }
    record = make(method, seed=seed, **{"metrics": metrics, **changes})
    path = write_record(record, results)
    if kept:
        rows: list[dict[str, Any]] = [{"qid": str(i), "choice": int(i in right), "gold": 1} for i in range(PROBLEMS)]
        for i, row in enumerate(rows):
            row |= {"columns": [name for name, asked in COLUMNS.items() if i in asked]} if named else {}
        write_predictions(path, rows)
    return record
