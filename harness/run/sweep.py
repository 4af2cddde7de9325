"""Many runs, one after another or side by side. Recorded runs are skipped, and a failed run does not stop the others.

Several processes may sweep over the same results folder: each run is made by one of them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from rich.console import Console

from harness.config.plan import RunPlan
from harness.records import Record
from harness.run.attempt import Attempt, Wanted, attempt, completed
from harness.run.checks import check_runs
from harness.run.cores import Cores
from harness.run.executor import Executor, run_on_executor
from harness.run.jobs import run_side_by_side
from harness.run.progress import LOG_SECONDS, SweepProgress, print_line
from harness.run.runner import Runner
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
    make_runner: Callable[[], Runner],
    runner: Runner,
    plans: Sequence[RunPlan],
    console: Console,
    force: bool,
    cores: Cores,
    log_seconds: float = LOG_SECONDS,
    executor: Executor | None = None,
) -> SweepResult:
    """Make every run that is not recorded as completed.

    Args:
        make_runner: makes a runner like `runner` in another process.
        runner: makes one run.
        plans: the runs.
        console: where progress and the outcome of each run are printed.
        force: repeat runs that are recorded.
        cores: how many runs are made side by side, and their threads.
        log_seconds: longest time between two lines of progress where the output is no terminal.
        executor: makes the runs; None makes them here.

    Returns:
        All records, old and new; none in a process that follows the first one.

    Raises:
        UserError: one of the runs cannot be made, which is found before the first run starts; or a record cannot be
            written.
        KeyboardInterrupt: a signal stopped the sweep; the records of the runs that it stopped are written.
    """
    if not runner.processes.is_main:
        with stop_on_signals():
            runner.follow()
        return SweepResult()
    with runner.announced_end():
        return _lead(make_runner, runner, plans, console, force, cores, log_seconds, executor)


def _lead(
    make_runner: Callable[[], Runner],
    runner: Runner,
    plans: Sequence[RunPlan],
    console: Console,
    force: bool,
    cores: Cores,
    log_seconds: float,
    executor: Executor | None,
) -> SweepResult:
    """Make the runs in the first process, or in the only one; see `sweep`."""
    made: dict[str, Record] = {}
    skipped = 0
    machine = executor.machine if executor else runner.machine
    for note in check_runs(plans, runner.spec, runner.task, machine, runner.results_dir):
        print_line(console, note)
    pending: list[Wanted] = []
    for plan in plans:
        found = completed(runner, runner.workspace(plan))
        if found and not force:
            print_line(console, f"{plan.name}: already recorded as {found.run_id}; --force repeats the run")
            made[plan.name], skipped = found, skipped + 1
        else:
            pending.append(Wanted(plan, found.created if found else None))
    for wanted in pending:
        runner.require_recordable(wanted.plan)
    jobs = 1 if executor else min(cores.jobs, len(pending))

    def report(plan: RunPlan, result: Attempt) -> None:
        nonlocal skipped
        print_line(console, f"{plan.name}: {result.line}")
        if result.record is not None:
            made[plan.name] = result.record
        if result.skipped:
            skipped += 1
            shown.skip()

    with stop_on_signals(), SweepProgress(console, len(pending), log_seconds, max(1, jobs)) as shown:
        if executor:
            run_on_executor(executor, pending, make_runner, runner, shown, report)
        elif jobs > 1:
            run_side_by_side(jobs, pending, make_runner, runner, cores.threads, shown, report)
        else:
            _run_in_turn(pending, runner, shown, report)
    return SweepResult([made[plan.name] for plan in plans], skipped)


def _run_in_turn(
    runs: Sequence[Wanted],
    runner: Runner,
    shown: SweepProgress,
    report: Callable[[RunPlan, Attempt], None],
) -> None:
    """Make runs in this process; `report` is called with what became of each."""
    waiting = deque(runs)
    while waiting:
        wanted = waiting.popleft()
        result = attempt(runner, wanted, partial(shown.run, wanted.plan.name))
        report(wanted.plan, result)
        if result.record is None:
            # It comes after the others: by then the other process may have finished it.
            waiting.append(replace(wanted, wait=True))
