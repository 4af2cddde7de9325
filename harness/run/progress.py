"""A run's progress on the terminal: phase, bar, loss, rate and time left."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_EVERY = 10
"""Without a terminal, so many lines a phase."""


class RunProgress:
    """`harness.run.runner.Progress` drawn by rich; plain lines where the output is no terminal.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
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
        """A new phase of `total` steps."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._what, self._total = what, total
        self._task = self._bar.add_task(what, total=total, note="")

    def advance(self, done: int, note: str = "") -> None:
        """`done` steps are over."""
        if self._task is not None:
            self._bar.update(self._task, completed=done, note=note)
        if not self.console.is_terminal and (done % max(1, self._total // LOG_EVERY) == 0 or done == self._total):
            line = f"{self._what}: {done}/{self._total} {note}".rstrip()
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
