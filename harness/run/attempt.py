"""One run of a sweep, as far as other processes leave it to this one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime

from harness.config.plan import RunPlan
from harness.errors import UserError, first_line
from harness.records import Record, find_record
from harness.run.heartbeat import beating
from harness.run.lock import OWNER_FILE, owner_of, run_lock
from harness.run.progress import Progress
from harness.run.recording import finish_publishing, unrecorded
from harness.run.runner import make_run, record_failure
from harness.run.setup import Setup
from harness.run.workspace import Workspace

WAIT_S = 300.0
"""Seconds after which a process that waits for another one says so, and looks at the other runs."""


@dataclass(frozen=True)
class Attempt:
    """What became of one run.

    Attributes:
        record: its record; None where another process is making the run.
        line: what happened, in a few words.
        skipped: whether another process recorded the run before this one could begin it.
    """

    record: Record | None
    line: str
    skipped: bool = False


@dataclass(frozen=True)
class Wanted:
    """A run that a sweep has decided to make.

    Attributes:
        plan: the run.
        repeats: `created` of the complete record that the run repeats, see `--force`; None if there is none. A second
            try of the run sees by it whether the first one has recorded the run.
        wait_s: how long to wait for another process that is making the run, in seconds.
    """

    plan: RunPlan
    repeats: datetime | None = None
    wait_s: float = 0.0

    def later(self, wait_s: float | None = None) -> "Wanted":
        """Return the same run, to be attempted after the others: by then the other process may have finished it.

        Args:
            wait_s: how long to wait for it then, in seconds; None for `WAIT_S`.
        """
        return replace(self, wait_s=WAIT_S if wait_s is None else wait_s)


def attempt(setup: Setup, wanted: Wanted, begin: Callable[[], AbstractContextManager[Progress]]) -> Attempt:
    """Make a run, unless another process makes it or has recorded it since the sweep decided to make it.

    Args:
        setup: what the run is made on.
        wanted: the run.
        begin: called when the run begins; its context receives the progress and is left when the run ends.

    A run that cannot be locked, or that the disk has no room for, has failed without a record on the disk.

    Raises:
        KeyboardInterrupt: a signal stopped the run; its record is written.
    """
    work = setup.workspace(wanted.plan)
    try:
        with run_lock(work.folder, wanted.wait_s) as is_ours:
            if not is_ours:
                then = "still waiting for it" if wanted.wait_s else "going on with the others"
                return Attempt(None, f"being made by {owner_of(work.folder)}; {then}")
            # Another process may have completed it between the look at the records and the lock.
            if found := _made_since(setup, wanted):
                return found
            with begin() as progress:
                record = make_run(setup, wanted.plan, beating(progress, work.folder / OWNER_FILE))
    except UserError as error:
        # What stops this run, such as a full disk, need not stop the others.
        record = unrecorded(setup, wanted.plan, first_line(error))
    return Attempt(record, outcome(record))


def record_death(setup: Setup, wanted: Wanted, error: str, begun: datetime | None = None) -> Attempt:
    """Record that a run failed because its process died, unless it is recorded already.

    Args:
        setup: what the run was made on.
        wanted: the run.
        error: how the process ended.
        begun: when the run was begun. A record that was made since then says more than the death does: of a process
            that was asked to stop, for example. None if the time is not known.
    """
    work = setup.workspace(wanted.plan)
    try:
        with run_lock(work.folder) as is_ours:
            if not is_ours:
                return Attempt(None, f"{error}; another process goes on with the run")
            if found := _made_since(setup, wanted):
                return found
            last = find_record(setup.results_dir, work.spec_hash)
            if begun is not None and last is not None and last.created >= begun:
                record = last
            else:
                record = record_failure(setup, wanted.plan, error)
    except UserError as unwritable:
        record = unrecorded(setup, wanted.plan, f"{error}; {first_line(unwritable)}")
    return Attempt(record, outcome(record))


def _made_since(setup: Setup, wanted: Wanted) -> Attempt | None:
    """Return the run as one that was recorded since the sweep decided to make it, and remove what is left of it.

    A run that is over, but whose process was killed before it had published all of it, is published now. None if the
    run was not recorded. The lock of the run must be held.
    """
    work = setup.workspace(wanted.plan)
    was_over = work.is_over
    finish_publishing(setup, work)
    found = completed(setup, work)
    if found is None or found.created == wanted.repeats:
        if was_over:
            work.clear()  # what is left is that of the record, and its repetition computes everything again
        return None
    work.remove()
    by = "an earlier" if was_over else "another"
    return Attempt(found, f"recorded by {by} process as {found.run_id}", skipped=True)


def completed(setup: Setup, work: Workspace) -> Record | None:
    """Return the run's record if it is complete."""
    found = find_record(setup.results_dir, work.spec_hash)
    return found if found is not None and found.status == "completed" else None


def outcome(record: Record) -> str:
    """Return how a run ended, in a few words."""
    if record.status != "completed":
        return f"{record.status}: {record.error}"
    values = [f"{name} {metric.value:.2f}" for name, metric in record.metrics.items() if metric.value is not None]
    return f"completed: {', '.join(values) or 'no accuracy'}"
