"""A run's heartbeat: every report of its progress, which other processes see by the time of a file.

A process that hangs keeps the lock of its run, so the others cannot take the run over. But they can say how long ago it
last got on with it. A thread that beats by itself would hide just that.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from harness.run.messages import Message, SentProgress, repeat
from harness.run.progress import Progress

EVERY_S = 10.0
"""Shortest time between two beats, which touch a file that may lie on another machine."""


def beating(progress: Progress, file: Path) -> Progress:
    """Return a progress that goes where `progress` goes, and sets the time of a file whenever the run gets on.

    Args:
        progress: shows the progress of the run.
        file: its time of modification is the last beat. A file that cannot be touched stops nothing.
    """
    last = 0.0

    def report(message: Message) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            with suppress(OSError):
                os.utime(file)
        repeat(message, progress)

    return SentProgress(report)
