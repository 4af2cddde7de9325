"""Runs that an executor makes, on this machine or on many: submit them, follow them, begin again those that are lost.

An executor decides only where and when a run is made. What is made, what is recorded and what is skipped is decided as
for runs in this process, see `harness.run.attempt`.
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from harness.backbone.machine import Machine
from harness.errors import UserError
from harness.run.attempt import Attempt, Wanted, record_death
from harness.run.jobs import Report
from harness.run.messages import MessageFile, ReceivedProgress
from harness.run.progress import SweepProgress
from harness.run.setup import Setup
from harness.run.unit import Unit
from harness.run.worker import GRACE_S
from harness.stopping import Stopped

TRIES = 4
"""How often a run is begun whose process is lost. Each try goes on from the last checkpoint."""
POLL_S = 0.5
"""Seconds between two looks at the jobs."""
RELEASE_S = 5.0
"""Seconds that all killed processes together get until they no longer hold the locks of their runs."""


class LostError(Exception):
    """The process of a job ended without a result; the message is one line that says how.

    Args:
        reason: the message.
        again: whether the job is to be submitted again.
    """

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class Job(Protocol):
    """A run that an executor makes."""

    def done(self) -> bool:
        """Return whether the job has ended, however it ended."""
        ...

    def result(self) -> Attempt | UserError:
        """Return what became of the run of a job that has ended, or what must end the sweep.

        Raises:
            LostError: there is no result.
        """
        ...

    def cancel(self) -> None:
        """Begin to stop the job. Its process then writes the record of the run, as far as it gets."""
        ...


class Executor(Protocol):
    """Makes runs somewhere.

    Attributes:
        machine: where the runs are made: device, dtype and kind of weights.
        threads: compute threads of a run.
        jobs: largest number of jobs at a time; None where the executor lets those wait that have no place.
    """

    machine: Machine
    threads: int
    jobs: int | None

    def open(self, say: Callable[[str], None]) -> None:
        """Connect to where the runs are made; `say` is called with what a user should know before the first one.

        Raises:
            UserError: that is not possible.
        """
        ...

    def submit(self, unit: Unit) -> Job:
        """Submit a run.

        Raises:
            UserError: it is refused.
        """
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


@dataclass
class _Submitted:
    """A run that is submitted.

    Attributes:
        unit: what is submitted of it.
        job: its present job.
        messages: those of the run's process.
        shown: shows them.
        begun: when it was first submitted. Its processes have made every record since then.
        tries: how often it has been submitted.
    """

    unit: Unit
    job: Job
    messages: MessageFile
    shown: ReceivedProgress
    begun: datetime
    tries: int = 1


def run_on_executor(
    executor: Executor,
    runs: Sequence[Wanted],
    make_setup: Callable[[], Setup],
    setup: Setup,
    shown: SweepProgress,
    report: Report,
) -> None:
    """Make runs on an executor. One whose process is lost is begun again, and has failed after `TRIES` tries.

    Args:
        executor: makes the runs.
        runs: the runs.
        make_setup: loads what a run needs where it is made; it is sent there.
        setup: the same here, to find where a run works and to record those whose process was lost.
        shown: shows the progress.
        report: called with what became of each run, in the order in which they end.

    Raises:
        UserError: something that must end the sweep; the other jobs are cancelled.
        KeyboardInterrupt: a signal stopped the sweep, or nobody reads its output any more; likewise.
    """
    if not runs:
        return
    waiting = deque(runs)
    submitted: list[_Submitted] = []

    def submit(wanted: Wanted) -> _Submitted:
        work = setup.workspace(wanted.plan)
        unit = Unit(make_setup, wanted, work.spec_hash, executor.threads, Path.cwd())
        messages, received = MessageFile(work.messages), ReceivedProgress(wanted.plan.name, shown)
        begun = datetime.now(UTC)
        return _Submitted(unit, executor.submit(unit), messages, received, begun)

    try:
        executor.open(shown.say)
        while waiting or submitted:
            while waiting and (executor.jobs is None or len(submitted) < executor.jobs):
                submitted.append(submit(waiting.popleft()))
            for one in list(submitted):
                result = _look(one, executor, setup, shown)
                if result is None:
                    continue
                submitted.remove(one)
                if isinstance(result, UserError):
                    raise result
                report(one.unit.wanted.plan, result)
                if result.record is None:
                    waiting.append(one.unit.wanted.later())
            time.sleep(POLL_S)
    except BrokenPipeError as pipe:
        raise Stopped(signal.SIGPIPE) from pipe
    finally:
        _stop(submitted, executor, setup)


def _look(one: _Submitted, executor: Executor, setup: Setup, shown: SweepProgress) -> Attempt | UserError | None:
    """Show what is new of a run, and submit it again if it is lost.

    Returns:
        What became of it, or what must end the sweep; None while it is being made.
    """
    is_done = one.job.done()  # asked first: what the process wrote last is read then
    for message in one.messages.read():
        one.shown.receive(message)
    if not is_done:
        return None
    try:
        result = one.job.result()
    except LostError as lost:
        if lost.again and one.tries < TRIES:
            shown.say(f"{one.unit.wanted.plan.name}: {lost}; submitting it again")
            one.job, one.tries = executor.submit(one.unit), one.tries + 1
            return None
        result = record_death(setup, one.unit.wanted, str(lost), one.begun)
    one.shown.end()
    return result


def _stop(submitted: Sequence[_Submitted], executor: Executor, setup: Setup) -> None:
    """Stop all jobs and disconnect. A run that has begun is recorded here if its process has not recorded it."""
    for one in submitted:
        one.job.cancel()
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and not all(one.job.done() for one in submitted):
        time.sleep(POLL_S)
    unfinished = [(one, error) for one in submitted if (error := _how_it_stopped(one)) and one.shown.begun]
    for one in submitted:
        one.shown.end()
    executor.close()
    deadline = time.monotonic() + RELEASE_S
    for one, error in unfinished:
        # A process that is being killed may still hold the lock of its run. One that lives on writes its own record.
        while record_death(setup, one.unit.wanted, error, one.begun).record is None and time.monotonic() < deadline:
            time.sleep(POLL_S)


def _how_it_stopped(one: _Submitted) -> str:
    """Return how the process of a cancelled job ended without a result; empty if there is one."""
    is_done = one.job.done()
    for message in one.messages.read():
        one.shown.receive(message)
    if not is_done:
        return f"cancelled, but its process did not end within {GRACE_S:.0f} s"
    try:
        one.job.result()
    except LostError as lost:
        return str(lost)
    return ""
