"""Many runs, one after another. Recorded runs are skipped, and a failed run does not stop the others.

Several processes may sweep over the same results folder: each run is made by one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console

from harness.config.plan import RunPlan
from harness.records import Record, find_record
from harness.run.checks import check_runs
from harness.run.lock import owner_of, run_lock
from harness.run.progress import LOG_SECONDS, SweepProgress, print_line
from harness.run.runner import Runner
from harness.run.stopping import stop_on_signals
from harness.run.workspace import Workspace


@dataclass
class SweepResult:
    """The result of a sweep.

    Attributes:
        records: the records in the order of the plans, those of skipped runs included.
        skipped: number of runs that were recorded before.
    """

    records: list[Record] = field(default_factory=list)
    skipped: int = 0

    @property
    def failed(self) -> list[Record]:
        """The records of runs that did not complete."""
        return [record for record in self.records if record.status != "completed"]


def sweep(
    runner: Runner, plans: Sequence[RunPlan], console: Console, force: bool, log_seconds: float = LOG_SECONDS
) -> SweepResult:
    """Make every run that is not recorded as completed.

    Args:
        runner: makes one run.
        plans: the runs.
        console: where progress and the outcome of each run are printed.
        force: repeat runs that are recorded.
        log_seconds: longest time between two lines of progress where the output is no terminal.

    Returns:
        All records, old and new.

    Raises:
        UserError: one of the runs cannot be made, which is found before the first run starts; or a record cannot be
            written.
        KeyboardInterrupt: a signal stopped the sweep; the record of the run that it stopped is written.
    """
    made: dict[int, Record] = {}
    skipped = 0
    for note in check_runs(plans, runner.spec, runner.task, runner.machine, runner.results_dir):
        print_line(console, note)
    for index, plan in enumerate(plans):
        if not force and (found := _completed(runner, runner.workspace(plan))):
            print_line(console, f"{plan.name}: already recorded as {found.run_id}; --force repeats the run")
            made[index], skipped = found, skipped + 1
    with stop_on_signals(), SweepProgress(console, len(plans) - skipped, log_seconds) as shown:
        # A run that another process makes comes last: by then that process may have finished it.
        for wait in (False, True):
            for index, plan in enumerate(plans):
                if index in made:
                    continue
                work = runner.workspace(plan)
                with run_lock(work.folder, wait) as is_ours:
                    if not is_ours:
                        owner = owner_of(work.folder)
                        print_line(console, f"{plan.name}: being made by {owner}; going on with the others")
                        continue
                    # Another process may have completed it between the look at the records and the lock.
                    if not force and (found := _completed(runner, work)):
                        print_line(console, f"{plan.name}: recorded by another process as {found.run_id}")
                        work.remove()
                        made[index], skipped = found, skipped + 1
                        shown.skip()
                        continue
                    with shown.run(plan.name) as progress:
                        made[index] = runner.run(plan, progress)
                print_line(console, f"{plan.name}: {_outcome(made[index])}")
    return SweepResult([made[index] for index in range(len(plans))], skipped)


def _completed(runner: Runner, work: Workspace) -> Record | None:
    """Return the run's record if it is complete."""
    found = find_record(runner.results_dir, work.spec_hash)
    return found if found is not None and found.status == "completed" else None


def _outcome(record: Record) -> str:
    """Return how a run ended, in a few words."""
    if record.status != "completed":
        return f"{record.status}: {record.error}"
    values = [f"{name} {metric.value:.2f}" for name, metric in record.metrics.items() if metric.value is not None]
    return f"completed: {', '.join(values) or 'no accuracy'}"
