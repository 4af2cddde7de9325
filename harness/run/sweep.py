"""Many runs, one after another. Recorded runs are skipped, and a failed run does not stop the others."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console

from harness.config.plan import RunPlan
from harness.records import Record, find_record, spec_hash
from harness.run.progress import RunProgress, print_line
from harness.run.runner import Runner
from harness.run.stopping import stop_on_signals


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


def sweep(runner: Runner, plans: Sequence[RunPlan], console: Console, force: bool) -> SweepResult:
    """Make every run that is not recorded as completed.

    Args:
        runner: makes one run.
        plans: the runs.
        console: where progress and the outcome of each run are printed.
        force: repeat runs that are recorded.

    Returns:
        All records, old and new.

    Raises:
        UserError: one of the runs cannot be made, which is found before the first run starts; or a record cannot be
            written.
        KeyboardInterrupt: a signal stopped the sweep; the record of the run that it stopped is written.
    """
    result = SweepResult()
    runner.check(plans)
    with stop_on_signals(), RunProgress(console) as progress:
        for plan in plans:
            found = None if force else find_record(runner.results_dir, spec_hash(runner.spec_of(plan)))
            if found is not None and found.status == "completed":
                note = f"already recorded as {found.run_id}; --force repeats the run"
                print_line(console, f"{plan.label} seed {plan.seed}: {note}")
                result.records.append(found)
                result.skipped += 1
                continue
            record = runner.run(plan, progress)
            result.records.append(record)
            print_line(console, f"{plan.label} seed {plan.seed}: {_outcome(record)}")
    return result


def _outcome(record: Record) -> str:
    """Return how a run ended, in a few words."""
    if record.status != "completed":
        return f"{record.status}: {record.error}"
    values = [f"{name} {metric.value:.2f}" for name, metric in record.metrics.items() if metric.value is not None]
    return f"completed: {', '.join(values) or 'no accuracy'}"
