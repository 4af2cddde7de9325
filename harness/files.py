"""Write files atomically, so that a reader never sees half of one; read and hash files; find the cache folder."""

import contextlib
import errno
import fnmatch
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from platformdirs import user_cache_path

from harness.errors import UserError

LARGEST_FILE = 256 * 2**20
"""No text or JSON file that is read at once has more bytes."""
_UNFINISHED = ".part"
"""What the name of a file ends in that is being written. It begins with a dot."""
_STALE_S = 86_400


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
        _replace(path, lambda handle: handle.write(data))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another place or free some space"
        ) from error


def copy_atomic(source: Path, path: Path) -> None:
    """Copy a file of any size, so that readers see either the old file or the whole new one, even after a crash.

    Args:
        source: the file to copy. A pipe or a device, which may block or never end, is not read.
        path: the file to write or replace. Folders are created as needed.

    Raises:
        UserError: the file cannot be read or written.
    """
    try:
        with _open_regular(source) as original:
            _replace(path, lambda handle: shutil.copyfileobj(original, handle))
    except OSError as error:
        raise UserError(
            f"{source}: cannot be copied to {path} ({error.strerror}); check its permissions, choose another place or "
            "free some space"
        ) from error


def cache_folder() -> Path:
    """Return the cache folder of the user; on Linux `$XDG_CACHE_HOME/peft-vl-bench` or `~/.cache/peft-vl-bench`.

    Raises:
        UserError: the user has no home folder.
    """
    no_home = "XDG_CACHE_HOME: not set, and you have no home folder; set it to a folder"
    try:
        folder = user_cache_path("peft-vl-bench", appauthor=False)
    except RuntimeError as error:
        raise UserError(no_home) from error
    if not folder.is_absolute():  # older versions of platformdirs leave the `~` as it is
        raise UserError(no_home)
    return folder


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder that is there as a whole or not at all.

    The body fills a folder beside it, which is renamed at the end. If the body fails, what it has written stays in that
    folder, and the next call finds it there.

    Args:
        folder: a folder that does not exist yet, or an empty one.

    Yields:
        The folder to fill.

    Raises:
        UserError: `folder` contains something, or cannot be written.
    """
    # `.` has no name to make that of the other folder from, and beside a link is another disk than behind it.
    folder = Path(os.path.realpath(folder))
    if os.path.ismount(folder):
        raise UserError(f"{folder}: is where a file system begins; give a folder in it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an empty folder; give a new folder")
    filled = folder.with_name(f"{folder.name}.partial")
    require_writable(filled)
    try:
        yield filled
    except BaseException:
        with contextlib.suppress(OSError):  # it contains something
            filled.rmdir()
        raise
    try:
        filled.replace(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error


def require_writable(folder: Path) -> None:
    """Check that files can be written into a folder, before any work is spent on them.

    Args:
        folder: the folder, which is created if it does not exist.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_writing(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error


def require_place(folder: Path) -> None:
    """Check that files can be written into a folder, as `require_writable` does, but do not make the folder.

    Raises:
        UserError: the folder, or the nearest one above it that exists, cannot be written or is a file.
    """
    place = _existing(folder)
    try:
        _try_writing(place)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.lexists(place):
            return require_place(folder)  # another process has removed it since
        raise UserError(f"{place}: cannot be written ({error.strerror}); choose another folder") from error


def require_same_file_system(source: Path, target: Path) -> None:
    """Check that a file can be moved from one folder to another in one step. The folders need not exist.

    Raises:
        UserError: the folders are on different file systems.
    """
    here, there = (_existing(folder) for folder in (source, target))
    if os.stat(here).st_dev != os.stat(there).st_dev:
        raise UserError(
            f"{target}: is on another file system than {source}, so nothing can be moved there; keep the whole results "
            "folder on one"
        )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))


def _try_writing(folder: Path) -> None:
    """Write a few bytes into a temporary file: a full disk may still take an empty one."""
    with tempfile.TemporaryFile(dir=folder) as handle:
        handle.write(bytes(4096))
        handle.flush()


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let a temporary file be written, wait until its bytes are on the disk, and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def require_file_writable(path: Path) -> None:
    """Check that a file can be written, before any work is spent on its content.

    Raises:
        UserError: its folder cannot be written, its name is too long, or it is a folder.
    """
    require_writable(path.parent)
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another file") from error
    if is_folder:
        raise UserError(f"{path}: is a folder; give a file")


def remove_stale(folder: Path) -> None:
    """Remove what writers that were killed left below a folder: unfinished files that nobody wrote to for a day."""
    # A walk goes on where another process removes a folder; `Path.rglob` does not in Python 3.11.
    for place, _, names in os.walk(folder):
        for name in fnmatch.filter(names, f".*{_UNFINISHED}"):
            with contextlib.suppress(OSError):  # its writer may remove it, or another process
                if _is_stale(path := Path(place, name)):
                    path.unlink()


def remove_stale_folders(parent: Path, pattern: str) -> None:
    """Remove the temporary folders that processes that were killed left in a folder, as `remove_stale` does files.

    Args:
        parent: the folder in which they are.
        pattern: matches the name of each temporary folder, and of nothing else.
    """
    for path in parent.glob(pattern):
        with contextlib.suppress(OSError):
            if _is_stale(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_stale(path: Path) -> bool:
    return path.lstat().st_mtime < time.time() - _STALE_S


def read_file(path: Path, most: int = LARGEST_FILE) -> bytes:
    """Return the content of a file. A pipe or a device, which may block or never end, is not read.

    Args:
        path: the file.
        most: largest number of bytes.

    Raises:
        OSError: the file cannot be read, is no regular file, or is larger; `strerror` says which.
    """
    with _open_regular(path) as handle:
        # `read(most + 1)` would allocate as many bytes, however small the file is.
        if os.fstat(handle.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most / 2**20:,.0f} MiB", str(path))
        return handle.read()


def _open_regular(path: Path) -> IO[bytes]:
    # Without O_NONBLOCK, opening a pipe waits until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # `fdopen` would name a folder by the number of its descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def sha256_of_files(hashes: Mapping[str, str]) -> str:
    """Return one SHA-256 in hexadecimal for a set of files. It covers their sorted names and hashes.

    Args:
        hashes: file name -> SHA-256 of the file.
    """
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
