"""The subcommand `verify`: make a recorded run again, and say whether the same comes out."""

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.backbone.machine import Machine, resolve_machine, use_deterministic_algorithms
from harness.backbone.weights import require_weights
from harness.config.plan import RunPlan, recorded_plan
from harness.config.presets import PRESETS, BackboneSpec, base_model, resolve_spec
from harness.data.places import find_data
from harness.errors import UserError
from harness.records import Record, read_record, record_path
from harness.report.rerun import changed_inputs, no_comparison_text, verification, verification_text
from harness.run.compiled import require_capturable
from harness.run.cores import compute_threads, divide_cores
from harness.run.progress import LOG_SECONDS, print_line
from harness.run.setup import Setup
from harness.run.sweep import sweep
from harness.stopping import exit_status
from harness.streams import print_result
from harness.tasks.contract import DataOptions, load_task
from harness.typed import MOST_THREADS

_CHANGED = "the run cannot be made again, because what it starts from has changed"


@dataclass(frozen=True)
class VerifyOptions:
    """The options of `verify`, as its help describes them."""

    record: Path
    data_root: Path | None
    model: str | None
    llm: str | None
    clip: str | None
    device: str
    threads: int | None
    within: float | None
    into: Path | None
    format: str


def verify_command(options: VerifyOptions, console: Console) -> int:
    """Make a recorded run again and print how its outcome differs.

    Args:
        options: the options of the command line.
        console: where progress goes. The result goes to standard output.

    Returns:
        The exit status: 0 if the outcome is identical or within the limits, 1 if it is not, or the run failed.

    Raises:
        UserError: an option is wrong, the record is not one of a completed run, or something that the run needs is
            missing.
    """
    record = read_record(options.record)
    if record.kind == "speed" or record.status != "completed":
        what = "times" if record.kind == "speed" else f"a run that {record.status}"
        raise UserError(f"{options.record}: is a record of {what}; give that of a completed run with scores")
    _require_threads(options, record)
    spec = _backbone(options, record)
    weights = "random" if record.backbone.weights == "random" else "pretrained"
    machine = resolve_machine(options.device, record.backbone.dtype, weights)
    plan = recorded_plan(record)
    if options.data_root is None and not spec.packaged:
        options = replace(options, data_root=find_data(record.task))
        if options.data_root is None:
            raise UserError(f"--data-root DIR: needed for {spec.display}; give the data folder of the recorded run")
    if record.environment.deterministic:
        use_deterministic_algorithms()  # for the run too, and before the next check computes on a GPU
    require_capturable([plan], machine.device, "verify it on another machine")
    if weights == "pretrained":
        require_weights(spec, partial(print_line, console))
    if options.into is not None:
        return _verify(options, record, plan, spec, machine, options.into, console)
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        return _verify(options, record, plan, spec, machine, Path(folder), console)


def _require_threads(options: VerifyOptions, record: Record) -> None:
    """Refuse a number of threads from the record that no option takes, before torch starts them."""
    threads = record.environment.threads
    if options.threads is None and threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UserError(
            f"{options.record}: environment.threads: {threads:,} is not from 1 to {MOST_THREADS:,}; give --threads"
        )


def _backbone(options: VerifyOptions, record: Record) -> BackboneSpec:
    """Return the backbone of the record, whose parts the options give where its model is no preset."""
    base = base_model(record.model, record.backbone.quantize)
    preset = options.model or (base if base in PRESETS else "tiny")
    spec = resolve_spec(preset, options.llm, options.clip, record.backbone.quantize)
    if spec.name != record.model:
        raise UserError(
            f"--model, --llm, --clip: they name {spec.name}, but the record is of {record.model}; give the same as "
            "the recorded run"
        )
    return spec


def _verify(
    options: VerifyOptions,
    record: Record,
    plan: RunPlan,
    spec: BackboneSpec,
    machine: Machine,
    into: Path,
    console: Console,
) -> int:
    threads = options.threads or record.environment.threads
    cores = divide_cores(None if machine.device.type != "cpu" else 1, threads, spec, machine)
    try:
        with compute_threads(cores.threads):
            make_setup = partial(_setup, options, record, spec, machine, into)
            setup = make_setup()
            if changed := changed_inputs(record, setup.spec_of(plan)):
                print_result(no_comparison_text(_CHANGED, changed, options.format))
                return 1
            if record_path(record, into).resolve() == options.record.resolve():
                raise UserError(f"--into {into}: holds the record itself; give another folder")
            _say_length(record, console)
            result = sweep(make_setup, setup, [plan], console, False, cores, LOG_SECONDS)
            setup.processes.close()
    except KeyboardInterrupt as stop:
        print(f"interrupted by {str(stop) or 'SIGINT'}", file=sys.stderr)
        return exit_status(stop)
    (again,) = result.records
    if again.status != "completed":
        print_result(no_comparison_text(f"the run {again.status}: {again.error}", (), options.format))
        return 1
    found = verification(record, options.record, again, record_path(again, into), options.within)
    print_result(verification_text(found, options.format))
    return 1 if found.outcome == "different" else 0


def _setup(options: VerifyOptions, record: Record, spec: BackboneSpec, machine: Machine, into: Path) -> Setup:
    """Read the data and return what makes the run, with the settings of the record that can change bits."""
    begun = time.perf_counter()
    skipped = record.data.skipped_images > 0
    task = load_task(record.task, DataOptions(options.data_root, record.data.limit, skipped))
    return Setup(spec, task, machine, time.perf_counter() - begun, into, micro_batch=record.micro_batch)


def _say_length(record: Record, console: Console) -> None:
    seconds = sum(part for part in (record.times_s.train, record.times_s.eval) if part is not None)
    print_line(console, f"{record.run_id}: the recorded run took {seconds:,.0f} seconds to train and to answer")
