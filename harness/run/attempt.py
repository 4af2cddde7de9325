"""One run of a sweep, as far as other processes leave it to this one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from harness.config.plan import RunPlan
from harness.records import Record, find_record
from harness.run.lock import owner_of, run_lock
from harness.run.progress import Progress
from harness.run.runner import Runner
from harness.run.workspace import Workspace


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


def attempt(
    runner: Runner, plan: RunPlan, force: bool, wait: bool, begin: Callable[[], AbstractContextManager[Progress]]
) -> Attempt:
    """Make a run, unless another process makes it.

    Args:
        runner: makes the run.
        plan: the run.
        force: repeat a run that is recorded.
        wait: whether to wait for another process that is making the run.
        begin: called when the run begins; its context receives the progress and is left when the run ends.

    Raises:
        UserError: the run cannot be locked, or its record cannot be written.
        KeyboardInterrupt: a signal stopped the run; its record is written.
    """
    work = runner.workspace(plan)
    with run_lock(work.folder, wait) as is_ours:
        if not is_ours:
            return Attempt(None, f"being made by {owner_of(work.folder)}; going on with the others")
        # Another process may have completed it between the look at the records and the lock.
        if not force and (found := completed(runner, work)):
            work.remove()
            return Attempt(found, f"recorded by another process as {found.run_id}", skipped=True)
        with begin() as progress:
            record = runner.run(plan, progress)
    return Attempt(record, outcome(record))


def completed(runner: Runner, work: Workspace) -> Record | None:
    """Return the run's record if it is complete."""
    found = find_record(runner.results_dir, work.spec_hash)
    return found if found is not None and found.status == "completed" else None


def outcome(record: Record) -> str:
    """Return how a run ended, in a few words."""
    if record.status != "completed":
        return f"{record.status}: {record.error}"
    values = [f"{name} {metric.value:.2f}" for name, metric in record.metrics.items() if metric.value is not None]
    return f"completed: {', '.join(values) or 'no accuracy'}"
