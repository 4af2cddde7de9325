"""Write files atomically, so that a reader never sees half of one; hash their content; find the cache folder."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness.errors import UserError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see either the old file or the whole new one, even after a crash.

    The content goes into a temporary file in the same folder, which is then renamed. Folders are created as needed.

    Args:
        path: the file to write or replace.
        content: bytes, or text that is written as UTF-8.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        _replace(path, data)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another place or free some space"
        ) from error


def cache_folder() -> Path:
    """Return the cache folder of the user: `$XDG_CACHE_HOME/peft-vl-bench`, by default `~/.cache/peft-vl-bench`.

    Raises:
        UserError: the user has no home folder.
    """
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise UserError("XDG_CACHE_HOME: not set, and you have no home folder; set it to a folder") from error
    return base / "peft-vl-bench"


def require_writable(folder: Path) -> None:
    """Check that files can be written into a folder, before any work is spent on them.

    Args:
        folder: the folder, which is created if it does not exist.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error


def _replace(path: Path, data: bytes) -> None:
    """Write a temporary file, wait until its bytes are on the disk, and rename it to `path`."""
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
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_files(hashes: Mapping[str, str]) -> str:
    """Return one SHA-256 in hexadecimal for a set of files. It covers their sorted names and hashes.

    Args:
        hashes: file name -> SHA-256 of the file.
    """
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
