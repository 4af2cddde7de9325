"""A results folder as a data set on the model hub: a table with one row per record, the records, and a card."""

import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData

from harness.errors import UserError
from harness.escape import text_table
from harness.records import REMARKS, Record, read_records, read_remarks, record_path, record_text, schema_text
from harness.report.frame import frame
from harness.report.readme import record_guide
from harness.report.selection import hardware
from harness.sharing.upload import CARD, LIBRARY, LICENCE, Upload, repository_id

TABLE = "records.parquet"
"""The file of the table."""
SPLIT = "records"
"""The split of the data set that is the table."""
_RECORDS = "records/"


def results_upload(results: Path, repo: str) -> Upload:
    """Return what is uploaded of a results folder.

    Args:
        results: the results folder.
        repo: id of the repository, `OWNER/NAME`.

    Raises:
        UserError: it has no records, or a record or the remarks have an error.
    """
    repository_id(repo, "--repo")
    records = read_records(results)
    if not records:
        raise UserError(f"{results}: has no records; give a results folder, which has a folder `records`")
    files: dict[str, bytes | Path] = {
        CARD: str(results_card(records, repo)).encode(),
        TABLE: records_table(records),
        "schema.json": schema_text().encode(),
    }
    files |= {record_path(record, Path()).as_posix(): record_text(record).encode() for record in records}
    if read_remarks(results):
        files[REMARKS] = results / REMARKS
    return Upload(repo, "dataset", f"Upload {len(records)} records", files, owned=(_RECORDS, REMARKS))


def records_table(records: Sequence[Record]) -> bytes:
    """Return the table of `harness.load_records` as a file in Parquet. Columns without any value are left out.

    Args:
        records: one or more records.
    """
    table = frame(records, Path()).dropna(axis="columns", how="all")
    for name in table.columns:
        if table[name].dtype == object:
            table[name] = _of_one_type(table[name])
    file = io.BytesIO()
    table.convert_dtypes().to_parquet(file, index=False)
    return file.getvalue()


def _of_one_type(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return a column whose values have one type that a file in Parquet has: otherwise each becomes text in JSON."""
    present = [value for value in column if not _is_missing(value)]
    are_lists = all(isinstance(value, list) for value in present)
    if _have_one_type([part for value in present for part in value] if are_lists else present):
        return column
    return column.map(lambda value: None if _is_missing(value) else json.dumps(value))


def _is_missing(value: Any) -> bool:
    return not isinstance(value, list) and bool(pd.isna(value))


def _have_one_type(values: Sequence[Any]) -> bool:
    """Return whether all values are texts, all truth values, all numbers with a point, or all integers of 64 bits."""
    plain = all(
        isinstance(value, str | bool | float) or (isinstance(value, int) and -(2**63) <= value < 2**63)
        for value in values
    )
    return plain and len({type(value) for value in values}) <= 1


def results_card(records: Sequence[Record], repo: str) -> DatasetCard:
    """Return the card of a results folder.

    Args:
        records: its records.
        repo: id of the repository in which the card will be.
    """
    data = DatasetCardData(
        license=LICENCE,
        pretty_name=f"Records of {LIBRARY}",
        task_categories=["visual-question-answering", "image-to-text"],
        tags=[LIBRARY, "benchmark", "parameter-efficient fine-tuning"],
        configs=[{"config_name": "default", "data_files": [{"split": SPLIT, "path": TABLE}]}],
    )
    text = f"""\
# Records of {LIBRARY}

{LIBRARY} trains, scores and times methods of parameter-efficient vision-language fine-tuning, all in the same way. Each
run writes one record. `{TABLE}` has one row for each of {len(records):,} records, and `{_RECORDS}` has the records
themselves, which `schema.json` describes. No number is typed in by hand.

```python
from datasets import load_dataset

table = load_dataset("{repo}", split="{SPLIT}").to_pandas()
print(table.groupby(["task", "model", "label"]).size())
```

The records can also be read where they are downloaded to: `hf download {repo} --repo-type dataset --local-dir results`,
then `python -m harness table --results results`.

## What the numbers were measured with

{_measured_with(records)}

A failed or interrupted run has a row, too: `status` says so. Records of kind `speed` are timings, and `oracle` reads a
description of each image in words. Random weights have no accuracy. Compare only rows with the same task, model, data
set (`data.data_hash`), weights (`backbone.weight_hash`) and protocol, over their seeds; one seed says little. Times
belong to the machine that they were measured on. `{REMARKS}`, if it is here, has sentences on some runs, such as a
mistake that was found later. The predictions of the runs and the copies of images that some records name in `samples`
are not part of this data set. Without the predictions no accuracy is tested, so the tables that are made of it mark no
value as best. The licence is that of {LIBRARY} and its records, not that of the data and models that the runs used.

## Columns of the table

A column has the path of its field in the record as its name; `protocol` is the protocol of the run, and `path` the
record's file. `samples`, `data.files` and `parameters.by_module` are in the records alone. A field that is null in
every record has no column, and a field with values of several types, or of one that a table lacks, is text in JSON.

{record_guide()}"""
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def _measured_with(records: Sequence[Record]) -> str:
    """Return what was measured on which data, machine and version of torch, as a table in Markdown."""
    counts = Counter(
        (r.kind, r.task, r.model, r.data.name, hardware(r), str(r.environment.versions.get("torch"))) for r in records
    )
    rows = [(*what, count) for what, count in sorted(counts.items())]
    return text_table(rows, ("kind", "task", "model", "data set", "hardware", "torch", "records"))
