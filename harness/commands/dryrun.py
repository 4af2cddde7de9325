"""`run --dry-run`: a table with a row for each run, a line with the sums, and what is missing."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from harness.backbone.machine import Machine, use_deterministic_algorithms
from harness.backbone.quantised import require_quantisation
from harness.commands.run_options import (
    RunOptions,
    backbone,
    data_options,
    no_runs,
    plans_of,
    require_accuracy,
    shortened,
)
from harness.config.presets import BackboneSpec
from harness.cost.output import shown_table
from harness.data.places import find_data, place_of, unheeded
from harness.escape import text_table
from harness.numbers import readable_memory
from harness.run.compiled import require_capturable
from harness.run.cores import Cores, compute_threads, divide_cores
from harness.run.downloads import REMEDY, Download, download_of_data, readable_total, rooms_for, total_size
from harness.run.dryrun import DryRun, Faults, dry_run
from harness.run.executor import Executor
from harness.run.executor_choice import LOCAL, make_executor, require_executor
from harness.run.progress import print_line
from harness.run.sharded import require_shardable
from harness.run.tracker import require_tracker
from harness.streams import print_result
from harness.tasks.contract import load_task
from harness.tasks.facts import task_facts
from harness.terminal import terminal_width

HEADERS = ("Run", "Seed", "Steps", "Step (s)", "Hours", "Memory (GiB)", "Micro-batch", "Paper", "Time from")
_SIDES = "lrrrrrrll"
UNKNOWN = "unknown"


def dry_run_command(options: RunOptions, console: Console) -> int:
    """Print what the runs would take and everything that is missing for them.

    Args:
        options: the options of `run`.
        console: where messages go.

    Returns:
        The exit status: 2 if something is missing.

    Raises:
        UserError: an option is wrong.
    """
    faults = Faults()
    facts = task_facts(options.task)
    if options.deterministic:
        use_deterministic_algorithms()  # a short measurement and the runs whose times are taken are made so, too
    with faults.collected():
        require_tracker(options.tracker)
    with faults.collected():
        require_accuracy(options, facts)
    spec, machine = _backbone(options, faults)
    # Of the GPU of another machine nothing is known; a CPU is taken to be like the one here.
    is_here = options.executor == LOCAL or machine.device.type == "cpu"
    executor = None
    with faults.collected():
        executor = _unopened_executor(options, spec, machine)
    with faults.collected():
        if is_here:
            require_quantisation(spec.quantize, machine.device)
    with faults.collected():
        require_shardable(spec.quantize, options.micro_batch)
    plans = plans_of(options, spec, machine)
    if not plans and options.format != "json":
        print_line(console, no_runs(options))
        for fault in faults.lines:
            print_result(f"missing: {fault}")
        return 2 if faults.lines else 0
    with faults.collected():
        if is_here:
            require_capturable(plans, machine.device)
    cores = Cores(1, executor.threads if executor else options.threads or torch.get_num_threads())
    with faults.collected():
        if options.executor == LOCAL:
            cores = divide_cores(options.jobs, options.threads, spec, machine)
    say = Console(quiet=True) if options.format == "json" else console
    downloads: list[Download] = []
    task = None
    with faults.collected():
        root = options.data_root
        if root is None and not spec.packaged:
            root = find_data(options.task)
            if line := unheeded(options.task):
                print_line(say, line)
        if root is not None or spec.packaged:
            data = data_options(replace(options, data_root=root), lambda line: print_line(say, line))
            task = load_task(options.task, data)
            plans = shortened(plans, options, task)
        elif (place := place_of(options.task)).reachable():
            downloads.append(download_of_data(options.task))
        else:
            faults.add(f"{place.absent()}; {place.remedy}")
    with compute_threads(cores.threads):
        found = dry_run(
            spec,
            machine,
            plans,
            options.task,
            task,
            faults,
            options.results,
            cores.threads,
            options.micro_batch,
            options.steps,
            is_here=is_here,
            jobs=(executor.jobs or len(plans)) if executor else cores.jobs,
            eval_every=options.eval_every,
        )
    found.downloads[:0] = downloads
    results = Download("results", None, ((found.disk_bytes, options.results),))
    for room in rooms_for([*found.downloads, results]):
        if not room.is_enough:
            faults.add(f"room on the disk: {room}; {REMEDY}")
    print_result(dry_run_text(found, faults.lines, cores.jobs, options.format, terminal_width()))
    return 2 if faults.lines else 0


def _backbone(options: RunOptions, faults: Faults) -> tuple[BackboneSpec, Machine]:
    """Return the backbone and the machine of the runs.

    An executor needs options that mean the same on every machine. If they do not, this machine stands in for the ones
    of the executor.

    Args:
        options: the options of `run`.
        faults: receives what an executor's options lack.

    Raises:
        UserError: an option is wrong.
    """
    if options.executor != LOCAL:
        with faults.collected():
            return backbone(options)
        options = replace(options, executor=LOCAL, device="auto")
    return backbone(options)


def _unopened_executor(options: RunOptions, spec: BackboneSpec, machine: Machine) -> Executor | None:
    """Return the executor that the options ask for, to which no run is submitted; None where they ask for none.

    Args:
        options: the options of `run`.
        spec: the backbone.
        machine: device, dtype and kind of weights of the runs.

    Raises:
        UserError: the executor refuses the runs.
    """
    require_executor(options.executor, options.submitit)
    with TemporaryDirectory() as folder:  # submitit makes its folder at once
        return make_executor(
            options.executor, spec, machine, options.jobs, options.threads, Path(folder), options.submitit
        )


def dry_run_text(found: DryRun, missing: Sequence[str], jobs: int, format: str, width: int | None = None) -> str:
    """Return what a dry run found.

    Args:
        found: what the runs would take.
        missing: what the runs need and what is missing, one line each.
        jobs: how many runs are made side by side.
        format: `json`, or `markdown` for a table and lines below it.
        width: columns of the terminal, which `markdown` fits; None for files and pipes.
    """
    offers = [download.offer for download in found.downloads]
    if format == "json":
        total = {"runs": len(found.rows), "hours": found.hours, "side_by_side": jobs, "disk_bytes": found.disk_bytes}
        total["download_bytes"] = total_size(found.downloads)
        whole = {"runs": found.rows, "total": total, "downloads": offers, "missing": list(missing)}
        return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
    cells = [_cells(row) for row in found.rows]
    table = text_table(cells, HEADERS) if width is None else shown_table(HEADERS, cells, _SIDES, width).rstrip("\n")
    lines = [table, "", _total(found, jobs)]
    lines += [f"will be downloaded: {line}" for line in offers]
    lines += [f"missing: {line}" for line in missing] or ["nothing is missing"]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one run."""
    cells = (
        row["run"],
        row["seed"],
        row["steps"],
        row["step_s"],
        None if row["hours"] is None else _hours(row["hours"]),
        None if row["memory_gib"] is None else round(row["memory_gib"], 2),
        row["micro_batch"],
        "-" if row["paper"] is None else row["paper"],
        row["hours_source"],
    )
    return tuple(UNKNOWN if cell is None else str(cell) for cell in cells)


def _total(found: DryRun, jobs: int) -> str:
    count = f"{len(found.rows)} run{'' if len(found.rows) == 1 else 's'}"
    known = found.known_hours
    hours = _hours(sum(known)) if known or not found.rows else UNKNOWN
    if known and (unknown := len(found.rows) - len(known)):
        hours += f" and {unknown} run{'' if unknown == 1 else 's'} of unknown length"
    side = f" one after another; {jobs} are made side by side" if jobs > 1 and len(found.rows) > 1 else ""
    downloads = readable_total(found.downloads)
    return f"total: {count}; hours: {hours}{side}; disk: {readable_memory(found.disk_bytes)}; downloads: {downloads}"


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}" if hours >= 0.1 else f"{hours:.4f}"
