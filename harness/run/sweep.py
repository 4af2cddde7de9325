"""Many runs, one after another or side by side. Recorded runs are skipped, and a failed run does not stop the others.

Several processes may sweep over the same results folder: each run is made by one of them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console

from harness.config.plan import RunPlan
from harness.processes import OutOfStepError
from harness.records import Record
from harness.run.attempt import Attempt, Wanted, attempt, completed
from harness.run.checks import check_runs
from harness.run.cores import Cores
from harness.run.executor import Executor, run_on_executor
from harness.run.jobs import run_side_by_side
from harness.run.progress import LOG_SECONDS, SweepProgress, print_line
from harness.run.recording import require_recordable
from harness.run.runner import announced_end, follow
from harness.run.setup import Setup
from harness.stopping import stop_on_signals


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
    make_setup: Callable[[], Setup],
    setup: Setup,
    plans: Sequence[RunPlan],
    console: Console,
    force: bool,
    cores: Cores,
    log_seconds: float = LOG_SECONDS,
    executor: Executor | None = None,
    cost: Callable[[RunPlan], float] | None = None,
) -> SweepResult:
    """Make every run that is not recorded as completed.

    Args:
        make_setup: loads the same as `setup` in another process.
        setup: what the runs are made on.
        plans: the runs.
        console: where progress and the outcome of each run are printed.
        force: repeat runs that are recorded.
        cores: how many runs are made side by side, and their threads.
        log_seconds: longest time between two lines of progress where the output is no terminal.
        executor: makes the runs; None makes them here.
        cost: returns how long a run takes, in any unit. Of runs that are made side by side, the longest are begun
            first, so that none is left to be made alone at the end. None begins them in their order.

    Returns:
        All records, old and new; none in a process that follows the first one.

    Raises:
        UserError: one of the runs cannot be made, which is found before the first run starts.
        KeyboardInterrupt: a signal stopped the sweep; the records of the runs that it stopped are written.
    """
    if not setup.processes.is_main:
        with stop_on_signals(once=True):
            follow(setup)
        return SweepResult()
    try:
        with announced_end(setup.processes):
            return _lead(make_setup, setup, plans, console, force, cores, log_seconds, executor, cost)
    except OutOfStepError as end:
        setup.processes.end(end.__cause__ or end)


def _lead(
    make_setup: Callable[[], Setup],
    setup: Setup,
    plans: Sequence[RunPlan],
    console: Console,
    force: bool,
    cores: Cores,
    log_seconds: float,
    executor: Executor | None,
    cost: Callable[[RunPlan], float] | None,
) -> SweepResult:
    """Make the runs in the first process, or in the only one; see `sweep`."""
    made: dict[str, Record] = {}
    skipped = 0
    machine = executor.machine if executor else setup.machine
    for note in check_runs(plans, setup.spec, setup.task, machine, setup.results_dir, setup.eval_every):
        print_line(console, note)
    pending: list[Wanted] = []
    for plan in plans:
        work = setup.workspace(plan)
        found = completed(setup, work)
        # One that is over but has left its workspace may not have been published as a whole; see `attempt`.
        if found and not force and not work.is_over:
            print_line(console, f"{plan.name}: already recorded as {found.run_id}; --force repeats the run")
            made[plan.name], skipped = found, skipped + 1
        else:
            pending.append(Wanted(plan, found.created if found and force else None))
    for wanted in pending:
        require_recordable(setup, wanted.plan)
    jobs = 1 if executor else min(cores.jobs, len(pending))
    if jobs > 1 and cost is not None:
        pending.sort(key=lambda wanted: cost(wanted.plan), reverse=True)

    def report(plan: RunPlan, result: Attempt) -> None:
        nonlocal skipped
        print_line(console, f"{plan.name}: {result.line}")
        if result.record is not None:
            made[plan.name] = result.record
        if result.skipped:
            skipped += 1
            shown.skip()

    # A launcher passes on the signal that it gets, and a scheduler signals both, so that one of several processes would
    # be ended by the second signal while it writes its record.
    is_launched = setup.processes.count > 1
    with (
        stop_on_signals(once=is_launched),
        SweepProgress(console, len(pending), log_seconds, max(1, jobs)) as shown,
    ):
        if executor:
            run_on_executor(executor, pending, make_setup, setup, shown, report)
        elif jobs > 1:
            run_side_by_side(jobs, pending, make_setup, setup, cores.threads, shown, report)
        else:
            _run_in_turn(pending, setup, shown, report)
    return SweepResult([made[plan.name] for plan in plans], skipped)


def _run_in_turn(
    runs: Sequence[Wanted],
    setup: Setup,
    shown: SweepProgress,
    report: Callable[[RunPlan, Attempt], None],
) -> None:
    """Make runs in this process; `report` is called with what became of each."""
    waiting = deque(runs)
    while waiting:
        wanted = waiting.popleft()
        result = attempt(setup, wanted, partial(shown.run, wanted.plan.name))
        report(wanted.plan, result)
        if result.record is None:
            waiting.append(wanted.later())
