"""Records as a table of pandas."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from harness.records import Record, record_path

_LONG: Mapping[str, bool | set[str]] = {"samples": True, "data": {"files"}, "parameters": {"by_module"}}
"""Fields that are left out: they are as many as a record has captions, files or modules."""
FIRST = ["run_id", "task", "model", "label", "method", "variant", "protocol", "seed", "status"]
"""Columns that a table has even if it has no row, in front of the others."""


def frame(records: Sequence[Record], results_dir: Path) -> pd.DataFrame:
    """Return one row per record, whose columns are the paths of the fields, such as `metrics.Avg.value`.

    Captions, the files of the data and the counts by module are left out.

    Args:
        records: the records.
        results_dir: their folder, for the column `path`.
    """
    rows = [
        {
            **record.model_dump(mode="json", exclude=_LONG),
            "protocol": record.protocol,
            "path": str(record_path(record, results_dir)),
        }
        for record in records
    ]
    table = pd.json_normalize(rows) if rows else pd.DataFrame(columns=FIRST)
    if rows:
        table["created"] = pd.to_datetime(table["created"])
    return table[[*FIRST, *(name for name in table.columns if name not in FIRST)]]
