"""The progress of a run: what a run reports, and how the terminal shows it."""

import os
import sys
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as ProgressBar,
)

LOG_EVERY = 10
"""Number of lines per phase where the output is not a terminal."""


class Progress(Protocol):
    """The interface through which a run reports its progress."""

    def start(self, what: str, total: int) -> None:
        """Begin a phase.

        Args:
            what: name of the phase.
            total: number of its steps.
        """
        ...

    def advance(self, done: int, note: str = "") -> None:
        """Report that `done` steps of the phase are finished.

        Args:
            done: number of steps since the phase began.
            note: loss and learning rate, or nothing.
        """
        ...

    def say(self, line: str) -> None:
        """Print one line that is worth keeping, for instance where a run resumes."""
        ...


class RunConsole(Console):
    """A console that raises BrokenPipeError when nobody reads its output, where rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Send further output nowhere, so that a record can still be written, and raise."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise BrokenPipeError


def print_line(console: Console, line: str) -> None:
    """Print one line exactly as it is: no markup, no colours, no line breaks added."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


class RunProgress:
    """Progress on the terminal: a bar with loss, learning rate and time left, or a few plain lines per phase elsewhere.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = ProgressBar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(show_speed=True),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._what, self._total = "", 0
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, what: str, total: int) -> None:
        """See `Progress.start`."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._what, self._total = what, total
        self._task = self._bar.add_task(what, total=total, note="")

    def advance(self, done: int, note: str = "") -> None:
        """See `Progress.advance`."""
        if self._task is not None:
            self._bar.update(self._task, completed=done, note=note)
        if not self.console.is_terminal and (done % max(1, self._total // LOG_EVERY) == 0 or done == self._total):
            line = f"{self._what}: {done}/{self._total} {note}".rstrip()
            print_line(self.console, line)

    def say(self, line: str) -> None:
        """Print one line, above the bar where there is one."""
        print_line(self._bar.console, line)
