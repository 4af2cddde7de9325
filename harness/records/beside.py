"""Reading the files that are kept beside a record for people to look at."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from harness.errors import UserError, first_error
from harness.files import read_file
from harness.records.sections import Section

KeptT = TypeVar("KeptT", bound=Section)
_ADVICE = "remove it; no table needs it"


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


def check_run(path: Path, spec_hash: str, record_path: Path) -> None:
    """Check that a file is that of the run of the record it lies beside.

    Args:
        path: the file.
        spec_hash: the hash of the run in it.
        record_path: the path of the record.

    Raises:
        UserError: it is that of another run.
    """
    if not record_path.stem.endswith(f"-{spec_hash}"):
        raise UserError(f"{path}: spec_hash: it is that of the run {spec_hash}; {_ADVICE}")
