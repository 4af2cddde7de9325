"""Records on disk: their paths, and the only code that reads and writes them."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError, first_error
from harness.files import write_atomic
from harness.records.history import SUFFIX as HISTORY_SUFFIX
from harness.records.record import Record, slug


def record_path(record: Record, results_dir: Path) -> Path:
    """Return the path of a record: `results_dir/records/{task}/{model}/{label}/seed{seed}-{hash}.json`."""
    folder = Path(results_dir) / "records" / record.task / slug(record.model) / record.label
    return folder / f"seed{record.seed}-{record.spec_hash}.json"


def predictions_path(record_path: Path) -> Path:
    """Return the path of a run's predictions: next to its record, with the ending `.predictions.jsonl`."""
    return record_path.with_suffix(".predictions.jsonl")


def write_record(record: Record, results_dir: Path) -> Path:
    """Write or replace a record's file, atomically, and return its path."""
    path = record_path(record, results_dir)
    write_atomic(path, record.model_dump_json(indent=2) + "\n")
    return path


def write_predictions(record_path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a run's predictions next to its record, atomically, one JSON object per line, and return their path."""
    path = predictions_path(record_path)
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    write_atomic(path, "".join(line + "\n" for line in lines))
    return path


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        UserError: the file cannot be read, is not a record, or has a field with an error. The message names the file
            and the field.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its path and permissions") from error
    except ValidationError as error:
        first = first_error(error)
        where = f"{path}: {first.field or 'record'}"
        raise UserError(f"{where}: {first.message}; repair the record or remove it") from error


def read_records(results_dir: Path) -> list[Record]:
    """Read all records under `results_dir/records`, sorted by path; empty where there is no such folder.

    Histories, which are stored beside the records, are not looked at.

    Raises:
        UserError: a file is not a valid record, or two files contain the same run.
    """
    seen: dict[str, Path] = {}
    records = []
    for path in sorted((Path(results_dir) / "records").rglob("*.json")):
        if path.name.endswith(HISTORY_SUFFIX):
            continue
        record = read_record(path)
        if (other := seen.setdefault(record.run_id, path)) is not path:
            raise UserError(f"{path}: run_id: {other} records the same run; remove one of the two files")
        records.append(record)
    return records


def find_record(results_dir: Path, spec_hash: str) -> Record | None:
    """Return the record with this spec hash under `results_dir`, or None. Other records are not read.

    Raises:
        UserError: see `read_record`.
    """
    for path in sorted((Path(results_dir) / "records").rglob(f"seed*-{spec_hash}.json")):
        return read_record(path)
    return None


def export_schema(path: Path) -> None:
    """Write the JSON schema of a record to `path`, atomically."""
    write_atomic(path, json.dumps(Record.model_json_schema(mode="serialization"), indent=2) + "\n")
