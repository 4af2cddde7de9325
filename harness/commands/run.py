"""The subcommand `run`: check the options, then train and score, or only report what a run would take."""

import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.backbone.machine import Machine, dtype_name, use_deterministic_algorithms
from harness.backbone.quantised import require_quantisation
from harness.backbone.weights import check_weights, require_weights
from harness.commands.dryrun import dry_run_command
from harness.commands.run_options import (
    RunOptions,
    backbone,
    data_options,
    no_runs,
    plans_of,
    require_accuracy,
    require_one_length,
    shortened,
)
from harness.commands.table import TableOptions, table_command_text
from harness.config.presets import BackboneSpec
from harness.cost.order import RunFlops
from harness.data.places import find_or_fetch_data
from harness.errors import UserError
from harness.hub import go_offline
from harness.processes import Processes, is_follower
from harness.records import Record, record_path
from harness.run.compiled import require_capturable
from harness.run.cores import Cores, compute_threads, divide_cores
from harness.run.executor_choice import LOCAL, make_executor, require_executor
from harness.run.progress import print_line
from harness.run.setup import Setup
from harness.run.sharded import require_shardable
from harness.run.sweep import SweepResult, sweep
from harness.run.tracker import require_tracker
from harness.run.worker_start import worker_context
from harness.stopping import exit_status
from harness.streams import Say, print_result
from harness.tasks.contract import load_task
from harness.tasks.facts import task_facts
from harness.terminal import terminal_width


def run_command(options: RunOptions, console: Console) -> int:
    """Do what the options ask for.

    Args:
        options: the options of the command line.
        console: where progress and messages go. Tables go to standard output.

    Returns:
        The exit status: 1 if a run failed, 2 if a dry run found something missing, 0 otherwise.

    Raises:
        UserError: an option is wrong, or something that a run needs is missing.
    """
    if is_follower():
        console = Console(quiet=True)
        try:
            return _run(options, console)
        except UserError:
            return 2  # the first process says why
    return _run(options, console)


def _run(options: RunOptions, console: Console) -> int:
    """Do what `run_command` says."""
    if options.format != "markdown" and not options.dry_run:
        raise UserError(f"--format {options.format}: only --dry-run prints it; leave it out")
    if options.dry_run:
        _prepare(options)
        return 0 if is_follower() else dry_run_command(options, console)
    try:
        result = make_runs(options, console)
    except KeyboardInterrupt as stop:
        if not is_follower() and exit_status(stop) != 128 + signal.SIGPIPE:  # then nobody reads this either
            name = str(stop) or "SIGINT"
            print(f"interrupted by {name}; the same command goes on from the last checkpoint", file=sys.stderr)
        return exit_status(stop)
    if not result.records:  # a process that follows the first one, or a part without runs
        return 0
    facts = task_facts(options.task)
    table = (facts.ablation_table if options.ablations else None) or facts.table
    console.print()
    model = backbone(options)[0].name
    shown = TableOptions(options.results, table, model, options.protocol, width=terminal_width())
    print_result(table_command_text(shown))
    for record in result.failed:
        print_line(console, f"{record.status}: {record.label} seed {record.seed}: {record.error}")
    for line in ending(options.results, result.records):
        print_line(console, line)
    return 1 if result.failed else 0


def _prepare(options: RunOptions) -> None:
    """Take the hub away where it was asked for, and check what needs no model."""
    if options.offline:
        go_offline()
    require_one_length(options)


def make_runs(options: RunOptions, console: Console) -> SweepResult:
    """Check the options, and then train and score; nothing but progress is printed.

    Args:
        options: the options; those of a dry run are ignored.
        console: where progress and messages go.

    Returns:
        The records of all runs; none in a process that follows the first one, and where `shard` leaves no run.

    Raises:
        UserError: an option is wrong, or something that a run needs is missing.
        KeyboardInterrupt: a signal stopped the runs.
    """
    _prepare(options)
    require_tracker(options.tracker)
    require_executor(options.executor, options.submitit)
    require_accuracy(options, task_facts(options.task))
    if options.deterministic:
        use_deterministic_algorithms()  # before anything is computed on a GPU, as some of the checks do
    spec, machine = backbone(options)
    require_shardable(spec.quantize, options.micro_batch)
    executor = make_executor(
        options.executor, spec, machine, options.jobs, options.threads, options.results, options.submitit
    )
    require_quantisation(spec.quantize, machine.device)
    cores = Cores(1, executor.threads) if executor else divide_cores(options.jobs, options.threads, spec, machine)
    # Cheap checks come first: options before data, data before weights.
    plans = plans_of(options, spec, machine)
    if not plans:
        print_line(console, no_runs(options))
        return SweepResult()
    if executor is None:
        require_capturable(plans, machine.device)
    if min(cores.jobs, len(plans)) > 1:
        worker_context()  # what it starts imports while this process checks what was asked for
    options = _with_files(options, spec, machine, lambda line: print_line(console, line))
    with compute_threads(cores.threads):
        there = replace(options, executor=LOCAL)
        # A machine from which runs are submitted may have no GPU. It only hashes the weights.
        here = replace(there, device="cpu", dtype=dtype_name(machine.dtype)) if executor else there
        setup = _make_setup(here, lambda line: print_line(console, line))
        plans = shortened(plans, options, setup.task)
        make_setup = partial(_make_setup, there)
        cost = RunFlops(spec, setup.task) if cores.jobs > 1 else None
        result = sweep(make_setup, setup, plans, console, options.force, cores, options.log_seconds, executor, cost)
        setup.processes.close()
    return result


def ending(results: Path, records: Sequence[Record]) -> list[str]:
    """Return what is written where, and a command to try next.

    Args:
        results: the results folder.
        records: the records of the runs that were asked for, old ones included.
    """
    done = [record for record in records if record.status == "completed"]
    if not done:
        return [f"The record of each failed run is in {results / 'records'}; the same command makes them again."]
    first = done[0]
    lines = [f"Records, predictions and training curves: {record_path(first, results).parent.parent}"]
    labels = list(dict.fromkeys(record.label for record in done))
    shared = {record.seed for record in done if record.label == labels[0]} & {
        record.seed for record in done if record.label == labels[-1]
    }
    folder = "" if results == Path("results") else f" --results {shlex.quote(str(results))}"
    adapters = results / "adapters" / record_path(first, results).parent.parent.relative_to(results / "records")
    if adapters.is_dir():
        lines.append(f"Adapters: {adapters}")
    comparable = first.data.limit is None and first.backbone.weights != "random"
    if len(labels) > 1 and shared and comparable:
        protocol = "" if first.protocol == "uniform" else f" --protocol {first.protocol}"
        asked = f"--model {shlex.quote(first.model)} --task {first.task}{protocol}"
        lines.append(f"Next: python -m harness compare {labels[0]} {labels[-1]} {asked}{folder}")
    else:
        lines.append(f"Next: python -m harness report{folder}")
    return lines


def _make_setup(options: RunOptions, say: Say = lambda line: None) -> Setup:
    """Read the data and return what makes the runs; called in each process that makes runs."""
    if options.deterministic:
        use_deterministic_algorithms()
    if options.offline:
        go_offline()
    spec, machine = backbone(options)
    begun = time.perf_counter()
    # The first process builds or checks the data, and the others find it done.
    with Processes.launched(machine.device).main_first():
        task = load_task(options.task, data_options(options, say))
    data_s = time.perf_counter() - begun
    return Setup(
        spec,
        task,
        machine,
        data_s,
        options.results,
        checkpoint_minutes=options.checkpoint_minutes,
        micro_batch=options.micro_batch,
        eval_every=options.eval_every,
        tracker=options.tracker,
        workers=options.workers,
    )


def _with_files(options: RunOptions, spec: BackboneSpec, machine: Machine, say: Say) -> RunOptions:
    """Find or fetch the weights and the data, and return the options with the data's folder.

    A packaged model comes with data of its own, which is not a folder of the user.
    """
    # The first process fetches, and the others find it done.
    with Processes.launched(machine.device).main_first():
        # What is wrong without a download is said before one begins.
        if options.weights == "pretrained":
            check_weights(spec)
        if options.data_root is None and not spec.packaged:
            options = replace(options, data_root=find_or_fetch_data(options.task, say))
        if options.weights == "pretrained":
            require_weights(spec, say)
    return options
