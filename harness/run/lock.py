"""One process per run: a lock on the run's workspace, so that several sweeps can share a results folder.

The operating system releases the lock when its holder ends, so nothing has to guess by the age of a file whether its
owner still lives. `harness.run.heartbeat` tells whether the owner gets on. docs/many-machines.md says what this means
on NFS.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

from harness.errors import UserError
from harness.files import read_file, write_atomic
from harness.locks import acquire

LOCK_FILE, OWNER_FILE = "lock", "owner.json"


@contextmanager
def run_lock(folder: Path, wait_s: float = 0.0) -> Iterator[bool]:
    """Hold the lock of a run's workspace.

    Args:
        folder: the workspace; made if it is not there.
        wait_s: how long to wait for another process to release the lock, in seconds.

    Yields:
        True, or False where another process still holds the lock after that time.

    Raises:
        UserError: the lock cannot be made there.
    """
    lock = _acquired(folder, wait_s)
    if lock is None:
        yield False
        return
    with lock:
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        write_atomic(folder / OWNER_FILE, json.dumps(owner) + "\n")
        yield True


def _acquired(folder: Path, wait_s: float, tries: int = 5) -> AbstractContextManager[object] | None:
    """Make the folder and acquire its lock."""
    for left in reversed(range(tries)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return acquire(folder / LOCK_FILE, wait_s, "give --results on another file system")
        except OSError as error:
            # Another process may have finished the run just now, and removed the folder.
            if not left or not isinstance(error, FileNotFoundError):
                raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another --results") from error
    raise AssertionError("the last try raises")


def owner_of(folder: Path) -> str:
    """Return who makes the run and when it last got on, as `host, process 123, last progress 0:00:04 ago`.

    This is for messages only. The clocks of two machines may differ.
    """
    file = folder / OWNER_FILE
    try:
        owner = json.loads(read_file(file))
        still = timedelta(seconds=max(0, round(time.time() - file.stat().st_mtime)))
        return f"{owner['host']}, process {owner['pid']}, last progress {still} ago"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another process"
