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
from harness.locks import FOREVER
from harness.run.attempt import Attempt, Wanted, record_death
from harness.run.jobs import Report
from harness.run.messages import MessageFile, ReceivedProgress
from harness.run.progress import SweepProgress
from harness.run.setup import Setup
from harness.run.unit import Unit
from harness.run.worker import GRACE_S
from harness.stopping import Stopped, stop_held_back

TRIES = 4
"""How often a run is submitted that is refused or whose process is lost. Each try goes on from the last checkpoint."""
RETRY_S = 300.0
"""Seconds until a refused run is submitted again. A scheduler that is being restarted answers by then."""
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
            UserError: it is refused. It may be submitted again later.
        """
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


@dataclass
class _Followed:
    """A run that is followed from its first submission to its end.

    Attributes:
        unit: what is submitted of it.
        messages: those of the run's process.
        shown: shows them.
        begun: when it was first to be submitted. Its processes have made every record since then.
        due: when it is to be submitted, by the monotonic clock; None while its job is followed.
        job: its present job, or the one that was lost; None before it is submitted.
        tries: how often it has been submitted.
    """

    unit: Unit
    messages: MessageFile
    shown: ReceivedProgress
    begun: datetime
    due: float | None
    job: Job | None = None
    tries: int = 0


def run_on_executor(
    executor: Executor,
    runs: Sequence[Wanted],
    make_setup: Callable[[], Setup],
    setup: Setup,
    shown: SweepProgress,
    report: Report,
) -> None:
    """Make runs on an executor. One whose process is lost is begun again, and has failed after `TRIES` tries.

    A run that a machine refuses to make has failed as well, unless none has begun yet: then the next ones would hardly
    fare better. The same holds for one that cannot be submitted, unless none has been submitted yet.

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
    followed: list[_Followed] = []
    is_first, has_begun = True, False

    def follow(wanted: Wanted) -> _Followed:
        work = setup.workspace(wanted.plan)
        unit = Unit(make_setup, wanted, work.spec_hash, executor.threads, Path.cwd())
        messages, received = MessageFile(work.messages), ReceivedProgress(wanted.plan.name, shown)
        return _Followed(unit, messages, received, datetime.now(UTC), time.monotonic())

    try:
        executor.open(shown.say)
        while waiting or followed:
            while waiting and (executor.jobs is None or len(followed) < executor.jobs):
                followed.append(follow(waiting.popleft()))
            for one in list(followed):
                result: Attempt | UserError | None
                if one.due is not None:
                    result, is_first = _submit(one, executor, setup, shown, is_first=is_first), False
                else:
                    result = _look(one, setup, shown)
                if isinstance(result, UserError):
                    if not has_begun:
                        raise result
                    result = record_death(setup, one.unit.wanted, str(result), one.begun)
                has_begun = has_begun or one.shown.begun or result is not None
                if result is None:
                    continue
                one.shown.end()
                followed.remove(one)
                report(one.unit.wanted.plan, result)
                if result.record is None:
                    waiting.append(one.unit.wanted.later(FOREVER))  # to submit it again costs more than to wait
            time.sleep(POLL_S)
    except BrokenPipeError as pipe:
        raise Stopped(signal.SIGPIPE) from pipe
    finally:
        _stop(followed, executor, setup)


def _submit(
    one: _Followed, executor: Executor, setup: Setup, shown: SweepProgress, *, is_first: bool
) -> Attempt | None:
    """Submit a run, if that is due.

    Returns:
        What became of it, if it was refused too often.

    Raises:
        UserError: the first submission of all was refused. After that one, a refusal is taken for a passing fault.
    """
    assert one.due is not None, "it is to be submitted"
    if time.monotonic() < one.due:
        return None
    one.tries += 1
    try:
        with stop_held_back():  # a stop that comes while the job is being submitted must cancel it, too
            one.job, one.due = executor.submit(one.unit), None
    except UserError as refused:
        if is_first:
            raise
        if one.tries == TRIES:
            return record_death(setup, one.unit.wanted, str(refused), one.begun)
        shown.say(f"{one.unit.wanted.plan.name}: {refused}; submitting it again in {RETRY_S:.0f} s")
        one.due = time.monotonic() + RETRY_S
    return None


def _look(one: _Followed, setup: Setup, shown: SweepProgress) -> Attempt | UserError | None:
    """Show what is new of a run, and let it be submitted again if it is lost.

    Returns:
        What became of it, or why the machine does not make it; None while it is being made.
    """
    assert one.job is not None, "it is submitted"
    is_done = one.job.done()  # asked first: what the process wrote last is read then
    for message in one.messages.read():
        one.shown.receive(message)
    if not is_done:
        return None
    try:
        return one.job.result()
    except LostError as lost:
        if not lost.again or one.tries >= TRIES:
            return record_death(setup, one.unit.wanted, str(lost), one.begun)
        shown.say(f"{one.unit.wanted.plan.name}: {lost}; submitting it again")
        one.due = time.monotonic()
    return None


def _stop(followed: Sequence[_Followed], executor: Executor, setup: Setup) -> None:
    """Stop all jobs and disconnect. A run that has begun is recorded here if its process has not recorded it."""
    submitted = [(one, one.job) for one in followed if one.job is not None]
    for _, job in submitted:
        if not job.done():  # the number of a process that has ended may be that of another one now
            job.cancel()
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and not all(job.done() for _, job in submitted):
        time.sleep(POLL_S)
    unfinished = [(one, error) for one, job in submitted if (error := _how_it_stopped(one, job)) and one.shown.begun]
    for one in followed:
        one.shown.end()
    executor.close()
    deadline = time.monotonic() + RELEASE_S
    for one, error in unfinished:
        # A process that is being killed may still hold the lock of its run. One that lives on writes its own record.
        while record_death(setup, one.unit.wanted, error, one.begun).record is None and time.monotonic() < deadline:
            time.sleep(POLL_S)


def _how_it_stopped(one: _Followed, job: Job) -> str:
    """Return how the process of a cancelled job ended without a result; empty if there is one."""
    is_done = job.done()
    for message in one.messages.read():
        one.shown.receive(message)
    if not is_done:
        return f"cancelled, but its process did not end within {GRACE_S:.0f} s"
    try:
        job.result()
    except LostError as lost:
        return str(lost)
    return ""
