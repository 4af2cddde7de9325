"""Many runs one after another: what is recorded is skipped, a failure does not stop the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console

from harness.config.plan import RunPlan
from harness.records import Record, find_record, spec_hash
from harness.run.progress import RunProgress
from harness.run.runner import Runner


@dataclass
class SweepResult:
    """Records of the sweep, in the order of the plans, and which of them were there before."""

    records: list[Record] = field(default_factory=list)
    skipped: int = 0

    @property
    def failed(self) -> list[Record]:
        """Runs that did not complete."""
        return [record for record in self.records if record.status != "completed"]


def sweep(runner: Runner, plans: Sequence[RunPlan], console: Console, force: bool) -> SweepResult:
    """Make every run that is not yet recorded as completed.

    Args:
        runner: makes a run.
        plans: what to run.
        console: where progress goes.
        force: run again what is recorded.

    Returns:
        All records, old and new.

    Raises:
        UserError: a run that cannot be made; before the first one starts.
    """
    result = SweepResult()
    runner.check(plans)
    with RunProgress(console) as progress:
        for plan in plans:
            found = None if force else find_record(runner.results_dir, spec_hash(runner.spec_of(plan)))
            if found is not None and found.status == "completed":
                note = f"recorded already, {found.run_id}; --force runs it again"
                _say(console, f"{plan.label} seed {plan.seed}: {note}")
                result.records.append(found)
                result.skipped += 1
                continue
            record = runner.run(plan, progress)
            result.records.append(record)
            _say(console, f"{plan.label} seed {plan.seed}: {_outcome(record)}")
    return result


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _outcome(record: Record) -> str:
    if record.status != "completed":
        return f"{record.status}: {record.error}"
    values = [f"{name} {metric.value:.2f}" for name, metric in record.metrics.items() if metric.value is not None]
    return f"completed: {', '.join(values) or 'no accuracy'}"
