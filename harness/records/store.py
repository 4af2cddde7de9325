"""Records on disk: their paths, and the only code that reads and writes them."""

import json
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError, first_error
from harness.escape import message, path_part
from harness.files import read_file, write_atomic
from harness.records.beside import BESIDE, PREDICTIONS
from harness.records.record import NOT_JSON, SCHEMA_VERSION, Record

_LARGEST_RECORD = 64 * 2**20
_VERSION = re.compile(rb'"schema_version"\s*:\s*([0-9]{1,9})\b')


def record_path(record: Record, results_dir: Path) -> Path:
    """Return the path of a record: `results_dir/records/{task}/{model}/{label}/seed{seed}-{hash}.json`."""
    folder = Path(results_dir) / "records" / record.task / path_part(record.model) / record.label
    return folder / f"seed{record.seed}-{record.spec_hash}.json"


def require_at_its_path(record: Record, results_dir: Path) -> None:
    """Check that a record is in the file that another record of its run would replace.

    Raises:
        UserError: its file has another name.
    """
    if not (path := record_path(record, results_dir)).is_file():
        raise UserError(f"{results_dir}: {record.run_id} is not at {path}; move it there")


def predictions_path(record_path: Path) -> Path:
    """Return the path of a run's predictions: next to its record, with the ending `.predictions.jsonl`."""
    return record_path.with_suffix(PREDICTIONS)


def write_record(record: Record, results_dir: Path) -> Path:
    """Write or replace a record's file, atomically, and return its path."""
    path = record_path(record, results_dir)
    write_atomic(path, record_text(record))
    return path


def record_text(record: Record) -> str:
    """Return the content of a record's file."""
    return record.model_dump_json(indent=2) + "\n"


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
    return _parse(path, _content(path))


def _content(path: Path) -> bytes:
    try:
        return read_file(path, _LARGEST_RECORD)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its path and permissions") from error


class _NotJsonError(UserError):
    """The config of a record has a number that no run has."""


def _parse(path: Path, content: bytes) -> Record:
    try:
        return Record.model_validate_json(content)
    except ValidationError as error:
        first = first_error(error)
        where = f"{path}: {first.field or 'record'}"
        kind = _NotJsonError if error.errors(include_url=False)[0]["type"] == NOT_JSON else UserError
        raise kind(f"{where}: {first.message}; repair the record or remove it") from error


def read_records(results_dir: Path) -> list[Record]:
    """Read all records under `results_dir/records`, sorted by path; empty where there is no such folder.

    Records of a later version of this format, and those whose config has an infinite number, are passed over, which is
    said once on standard error. Histories, which are stored beside the records, are not looked at.

    Raises:
        UserError: a file is not a valid record, or two files contain the same run, or two runs of one spec hash.
    """
    seen: dict[str, tuple[Path, Record]] = {}
    records = []
    for path in _files(results_dir):
        content = _content(path)
        if (version := _later_version(content)) is not None:
            _say(f"{path}: passed over, because it {_later(version)}")
            continue
        try:
            record = _parse(path, content)
        except _NotJsonError as error:
            _say(f"{error}; it is passed over")
            continue
        other, before = seen.setdefault(record.spec_hash, (path, record))
        if before is not record:
            require_same_run(record, path, before, other)
            raise UserError(f"{path}: run_id: {other} records the same run; remove one of the two files")
        records.append(record)
    return records


def require_same_run(one: Record, place: Path, other: Record, elsewhere: Path) -> None:
    """Check that two records with one spec hash are of one run, as they are unless somebody has changed one of them.

    Args:
        one: a record.
        place: its file, or the folder in which it is.
        other: another one with the same spec hash.
        elsewhere: the same of the other one.

    Raises:
        UserError: they are of two runs.
    """
    if one.run_id != other.run_id:
        raise UserError(
            f"{place}: spec_hash: is that of {one.run_id} here and of {other.run_id} in {elsewhere}; remove the record "
            "that was changed"
        )


def find_record(results_dir: Path, spec_hash: str) -> Record | None:
    """Return the record with this spec hash under `results_dir`, or None. It is found by what it says, not by its name.

    Raises:
        UserError: the file with this hash in its name or its text is not a valid record, has a later version of the
            format, or has the name of this run and is the record of another one. A run would replace such a file.
    """
    for path in _files(results_dir):
        content = _content(path)
        named = path.stem.endswith(f"-{spec_hash}")
        if not named and spec_hash.encode() not in content:
            continue
        if (version := _later_version(content)) is not None:
            raise UserError(f"{path}: it {_later(version)}, or give another --results")
        record = _parse(path, content)
        if record.spec_hash == spec_hash:
            return record
        if named:
            raise UserError(f"{path}: spec_hash: it is the record of {record.run_id}; give the file another name")
    return None


def _files(results_dir: Path) -> list[Path]:
    """Return the paths of all records under `results_dir`, sorted. Linked folders are followed, each folder once."""
    found, visited = [], set()
    for folder, inner, names in os.walk(Path(results_dir) / "records", onerror=_refuse, followlinks=True):
        status = os.stat(folder)  # `realpath` would look at every folder above each folder
        place = status.st_dev, status.st_ino
        if place in visited:
            inner.clear()
            continue
        visited.add(place)
        if named := sorted(name for name in inner if name.endswith(".json")):
            raise UserError(f"{Path(folder) / named[0]}: is a folder with the name of a record; rename or remove it")
        records = (name for name in names if name.endswith(".json") and not name.endswith(BESIDE))
        found += [Path(folder) / name for name in records]
    return sorted(found)


def _refuse(error: OSError) -> None:
    """Say that a folder cannot be read. Without this, its records would be missing from every table."""
    if not isinstance(error, FileNotFoundError):
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); give another --results") from error


def _later_version(content: bytes) -> int | None:
    """Return the version of a record's format, if it is later than the one that this code reads."""
    found = _VERSION.search(content)
    return int(found[1]) if found and int(found[1]) > SCHEMA_VERSION else None


@cache
def _say(line: str) -> None:
    print(message(line), file=sys.stderr)


def _later(version: int) -> str:
    return f"has version {version} of the format of records; update peft-vl-bench to read it"


def export_schema(path: Path) -> None:
    """Write the JSON schema of a record to `path`, atomically."""
    write_atomic(path, schema_text())


@cache
def schema_text() -> str:
    """Return the JSON schema of a record."""
    return json.dumps(Record.model_json_schema(mode="serialization"), indent=2) + "\n"
