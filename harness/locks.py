"""Locks between processes, as files.

A lock is `filelock`'s, which the operating system releases when its holder ends, however it ends. A file system that
has no such locks is refused: filelock would write a marker file instead, and that outlives a process that is killed.
"""

from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import UserError

FOREVER = -1.0
_POLL_S = 0.5


def acquire(file: Path, wait_s: float, instead: str) -> AbstractContextManager[FileLock] | None:
    """Acquire a lock.

    Args:
        file: the file that is locked. It stays when the lock is released.
        wait_s: how long to wait for another process that holds the lock, in seconds; `FOREVER` waits until it ends.
        instead: what a user can do where the file system has no locks.

    Returns:
        A context that holds the lock, and releases it when it is left. None if another process still holds it.

    Raises:
        FileNotFoundError: the file's folder does not exist.
        UserError: the lock cannot be made there.
    """
    lock = FileLock(file, timeout=wait_s, fallback_to_soft=False)
    try:
        return lock.acquire(poll_interval=_POLL_S)
    except Timeout:
        return None
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise UserError(f"{file}: cannot be opened ({error.strerror}); correct its permissions") from error
    except (OSError, NotImplementedError) as error:
        raise UserError(f"{file.parent}: cannot be locked ({error}); {instead}") from error
