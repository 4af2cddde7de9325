"""One process per run: a lock on the run's workspace, so that several sweeps can share a results folder.

The lock is `filelock`'s, which the operating system releases when its holder ends, however it ends. So nothing has to
guess by the age of a file whether its owner still lives. A file system that has no such locks is refused: the marker
file that filelock would write instead outlives its owner. docs/many-machines.md says what this means on NFS.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import UserError
from harness.files import read_file, write_atomic

LOCK_FILE, OWNER_FILE = "lock", "owner.json"


@contextmanager
def run_lock(folder: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock of a run's workspace.

    Args:
        folder: the workspace; made if it is not there.
        wait: whether to wait until another process releases the lock.

    Yields:
        True, or False where another process holds the lock and `wait` is false.

    Raises:
        UserError: the lock cannot be made there.
    """
    try:
        lock = _acquired(folder, wait)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError) as error:
        raise UserError(f"{folder}: cannot be locked ({error}); give --results on another file system") from error
    try:
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        write_atomic(folder / OWNER_FILE, json.dumps(owner) + "\n")
        yield True
    finally:
        lock.release()


def _acquired(folder: Path, wait: bool, tries: int = 5) -> FileLock:
    """Make the folder and acquire its lock."""
    for left in reversed(range(tries)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / LOCK_FILE, timeout=-1 if wait else 0, fallback_to_soft=False)
            lock.acquire(poll_interval=0.5)
            return lock
        except FileNotFoundError:
            # Another process has just finished the run, and removed the folder.
            if not left:
                raise
    raise AssertionError("the last try raises")


def owner_of(folder: Path) -> str:
    """Return who makes the run, as `host, process 123`; for messages only."""
    try:
        owner = json.loads(read_file(folder / OWNER_FILE))
        return f"{owner['host']}, process {owner['pid']}"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another process"
