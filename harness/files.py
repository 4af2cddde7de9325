"""Writing files so that a reader never sees half of one, and naming their content."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness.errors import UserError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` so that the file is either the old one or the whole new one.

    Temporary file in the same folder, flush, fsync, rename; folders are made as needed. Text is UTF-8.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        _replace(path, data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another place or make room") from error


def require_writable(folder: Path) -> None:
    """Find out before the work whether what comes of it can be kept in `folder`, which is made if it is not there.

    Raises:
        UserError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); give another folder") from error


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_files(hashes: Mapping[str, str]) -> str:
    """One hex SHA-256 for a set of files: over their sorted names and hashes, a line each."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
