"""The progress of a run: what a run reports, and how the terminal or a log file shows it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from harness.escape import visible
from harness.run.pace import Clock, RunPace, SweepPace
from harness.streams import abandon_output
from harness.terminal import paragraph

LOG_SECONDS = 30.0
"""Longest time between two lines of a log file, as long as steps are finished."""
TENTHS = 10
"""A log file gets a line at each of this many equal parts of a phase, if there was none shortly before."""


class Progress(Protocol):
    """The interface through which a run reports its progress. All arguments can be sent to another process."""

    def plan(self, phases: Mapping[str, int]) -> None:
        """Say which phases the run has, before the first one.

        Args:
            phases: number of samples of each phase, in their order.
        """
        ...

    def start(self, phase: str, total: int, validated_every: int = 0) -> None:
        """Begin a phase.

        Args:
            phase: its name, as in `plan`.
            total: number of its steps.
            validated_every: number of steps between two validations; 0 if there are none.
        """
        ...

    def advance(self, done: int, note: str = "") -> None:
        """Report that `done` steps of the phase are finished.

        Args:
            done: number of steps since the phase began.
            note: loss and learning rate, or nothing.
        """
        ...

    def validated(self, seconds: float) -> None:
        """Report that a validation after the last step took `seconds`."""
        ...

    def say(self, line: str) -> None:
        """Print one line that is worth keeping, for instance where a run resumes. The name of the run is put before."""
        ...


class Silent:
    """Shows nothing; see `Progress`. It is for the processes of a run that follow the first one."""

    def plan(self, phases: Mapping[str, int]) -> None:
        """See `Progress.plan`."""

    def start(self, phase: str, total: int, validated_every: int = 0) -> None:
        """See `Progress.start`."""

    def advance(self, done: int, note: str = "") -> None:
        """See `Progress.advance`."""

    def validated(self, seconds: float) -> None:
        """See `Progress.validated`."""

    def say(self, line: str) -> None:
        """See `Progress.say`."""


class RunConsole(Console):
    """A console that outlives its output.

    It raises BrokenPipeError when nobody reads the output, where rich would end the process. When the output cannot be
    written for another reason, such as a full disk, it goes on without: a run is worth more than its lines.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, as long as the output can be written."""
        try:
            super().print(*objects, **options)
        except BrokenPipeError:
            raise
        except OSError:
            self.quiet = True

    def on_broken_pipe(self) -> None:
        """Send further output nowhere, so that a record can still be written, and raise."""
        self.quiet = True
        abandon_output()
        raise BrokenPipeError


def print_line(console: Console, line: str) -> None:
    """Print one line exactly as it is: no markup, no colours, no line breaks added."""
    console.print(visible(line), highlight=False, markup=False, soft_wrap=True)


class SweepProgress:
    """The progress of a sweep: a bar per run on a terminal, lines with the time of day elsewhere.

    Args:
        console: where to print.
        runs: number of runs of the sweep.
        log_seconds: longest time between two lines where the output is no terminal; 0 prints a line for every step.
        side_by_side: how many runs are made at the same time.
        clock: returns a time in seconds; another one for tests.
    """

    def __init__(
        self,
        console: Console,
        runs: int,
        log_seconds: float = LOG_SECONDS,
        side_by_side: int = 1,
        clock: Clock = time.monotonic,
    ) -> None:
        self.console, self.log_seconds, self.clock = console, log_seconds, clock
        self.bar = ProgressBar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._runs, self._side_by_side = runs, side_by_side
        self._pace = SweepPace(pending=runs)
        self._running: list[RunPace] = []

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def skip(self) -> None:
        """Note that a run need not be made."""
        self._pace.skip()

    def repeat(self) -> None:
        """Note that a run which has begun is begun again."""
        self._pace.repeat()

    @contextmanager
    def run(self, name: str) -> Iterator["RunProgress"]:
        """Yield the progress of a run that begins now and ends with the context.

        Args:
            name: what the run is called in each line.
        """
        pace = self._pace.begin(self.clock)
        self._running.append(pace)
        progress = RunProgress(name, self, pace)
        try:
            yield progress
        finally:
            progress.close()
            self._running.remove(pace)
            self._pace.end(pace)

    def times_left(self, run: RunPace) -> list[str]:
        """Return how long a run and the sweep still take, in words, as far as they are known."""
        # An executor may make any number of runs at a time.
        side_by_side = max(self._side_by_side, len(self._running))
        run_s, sweep_s = run.left_s, self._pace.left_s(self._running, side_by_side)
        found = [] if run_s is None else [f"run {_duration(run_s)} left"]
        return found + ([f"sweep {_duration(sweep_s)} left"] if sweep_s is not None and self._runs > 1 else [])

    def say(self, line: str) -> None:
        """Print one line, above the bars where there are any. A terminal gets it broken between words."""
        console = self.bar.console
        lines = paragraph(visible(line), console.width).splitlines() if console.is_terminal else [line]
        for part in lines:
            print_line(console, part)


class RunProgress:
    """The progress of one run of a sweep; see `Progress`.

    Args:
        name: what the run is called in each line.
        sweep: shows it.
        pace: of the run.
    """

    def __init__(self, name: str, sweep: SweepProgress, pace: RunPace) -> None:
        self._name, self._sweep, self._pace = name, sweep, pace
        self._phase, self._total = "", 0
        self._task = sweep.bar.add_task(name, total=None, note="")
        self._logged_at, self._logged_part = 0.0, 0

    def plan(self, phases: Mapping[str, int]) -> None:
        """See `Progress.plan`."""
        self._pace.plan(phases)

    def start(self, phase: str, total: int, validated_every: int = 0) -> None:
        """See `Progress.start`."""
        self._phase, self._total = phase, total
        self._pace.start(phase, total, validated_every)
        self._sweep.bar.reset(self._task, description=f"{self._name}: {phase}", total=total, note="")
        self._log(0, "")

    def advance(self, done: int, note: str = "") -> None:
        """See `Progress.advance`."""
        self._pace.advance(done)
        rate = self._pace.samples_per_s
        speed = [] if rate is None else [f"{rate:.3g} samples/s" if rate < 100 else f"{rate:,.0f} samples/s"]
        text = ", ".join([*([note] if note else []), *speed, *self._sweep.times_left(self._pace)])
        self._sweep.bar.update(self._task, completed=done, note=text)
        if self._is_worth_a_line(done):
            self._log(done, text)

    def validated(self, seconds: float) -> None:
        """See `Progress.validated`."""
        self._pace.validated(seconds)

    def say(self, line: str) -> None:
        """See `Progress.say`."""
        self._sweep.say(f"{self._name}: {line}")

    def close(self) -> None:
        """Remove the run's bar."""
        self._sweep.bar.remove_task(self._task)

    def _is_worth_a_line(self, done: int) -> bool:
        """Return whether a log file gets a line: at the end, after `log_seconds`, and at each tenth unless just now."""
        since, longest = self._sweep.clock() - self._logged_at, self._sweep.log_seconds
        is_tenth = TENTHS * done // max(1, self._total) > self._logged_part
        return done == self._total or since >= longest or (is_tenth and since >= longest / TENTHS)

    def _log(self, done: int, text: str) -> None:
        if self._sweep.console.is_terminal:
            return
        self._logged_at, self._logged_part = self._sweep.clock(), TENTHS * done // max(1, self._total)
        share = f"({100 * done // max(1, self._total)} %)"
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        line = f"{now} {self._name}: {self._phase}: {done}/{self._total} {share}"
        self._sweep.say(f"{line} {text}".rstrip())


def _duration(seconds: float) -> str:
    """Return a duration such as `2:05:09` for hours, minutes and seconds, or `1 day, 2:05:09`."""
    return str(timedelta(seconds=round(seconds)))
