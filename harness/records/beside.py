"""The files that lie beside a record: their names, and reading and writing those that people look at."""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from harness.errors import UserError, first_error
from harness.files import read_file, write_atomic
from harness.records.fields import Section, SpecHash

PREDICTIONS = ".predictions.jsonl"
HISTORY = ".history.json"
DIAGNOSTICS = ".diagnostics.json"
BESIDE = (PREDICTIONS, HISTORY, DIAGNOSTICS)
"""What the names of these files end in, where that of their record ends in `.json`."""
_ADVICE = "remove it; no table needs it"


class OfRun(Section):
    """Base of what is kept beside the record of one run."""

    schema_version: Literal[1] = 1
    """Version of this format; it is raised when a field changes its meaning."""
    spec_hash: SpecHash
    """The run's hash, as in its record."""


KeptT = TypeVar("KeptT", bound=Section)
OfRunT = TypeVar("OfRunT", bound=OfRun)


def paths_beside(record_path: Path) -> list[Path]:
    """Return the path of each file that may lie beside a record."""
    return [record_path.with_suffix(suffix) for suffix in BESIDE]


def write_kept(path: Path, content: Section, indent: int | None = None) -> Path:
    """Write a file atomically and return its path.

    Args:
        path: the file.
        content: its content.
        indent: spaces for each level of the JSON; None writes one line.
    """
    write_atomic(path, content.model_dump_json(indent=indent) + "\n")
    return path


def read_kept(path: Path, kind: type[KeptT]) -> KeptT | None:
    """Return the content of a file; None if there is no such file.

    Args:
        path: the file.
        kind: the class of its content.

    Raises:
        UserError: the file cannot be read, or has another content.
    """
    try:
        return kind.model_validate_json(read_file(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_ADVICE}") from error
    except ValidationError as error:
        first = first_error(error)
        raise UserError(f"{path}: {first.field or kind.__name__.lower()}: {first.message}; {_ADVICE}") from error


def read_of_run(path: Path, kind: type[OfRunT], record_path: Path) -> OfRunT | None:
    """Return the content of a file that lies beside a record; None if there is no such file.

    Args:
        path: the file.
        kind: the class of its content.
        record_path: the path of the record.

    Raises:
        UserError: as `read_kept`, or the file is that of another run.
    """
    found = read_kept(path, kind)
    if found is not None and not record_path.stem.endswith(f"-{found.spec_hash}"):
        raise UserError(f"{path}: spec_hash: it is that of the run {found.spec_hash}; {_ADVICE}")
    return found
