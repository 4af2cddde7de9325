"""What the subcommands `speed` and `flops --figure2` do once their options are read."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.backbone.machine import resolve_machine
from harness.backbone.weights import require_weights
from harness.config.presets import resolve_spec
from harness.cost.figure2 import figure2, figure2_text
from harness.cost.flops import Workload
from harness.cost.plan import plan_speed
from harness.cost.profile import profile_json
from harness.cost.session import profile_session
from harness.cost.speed import measure
from harness.cost.speed_report import make_records, report_json, write_records
from harness.cost.speed_text import report_text
from harness.files import require_file_writable, require_writable, write_atomic
from harness.run.compiled import require_compiler
from harness.stopping import stop_held_back, stop_on_signals
from harness.streams import say_on_stderr
from harness.terminal import terminal_width


@dataclass(frozen=True)
class SpeedOptions:
    """The options of `speed`, as its help describes them."""

    methods: tuple[str, ...]
    model: str
    layers: int | None
    weights: str
    work: Workload
    steps: int
    processes: int
    threads: int | None
    goals: tuple[str, ...]
    device: str
    dtype: str
    compiled: bool
    profile: Path | None
    format: str
    results: Path


def speed_text(options: SpeedOptions) -> str:
    """Measure, write the records and, if wanted, the profile, and return the report. Progress is printed to stderr.

    Args:
        options: the options of `speed`.

    Raises:
        UserError: an option is wrong, weights are missing, a folder cannot be written, or the measurement fails.
        KeyboardInterrupt: a signal stopped the measurement. If it came after training was timed in one process, there
            are records of that.
    """
    spec = resolve_spec(options.model, others="give one of them")
    machine = resolve_machine(options.device, options.dtype, options.weights)
    if options.compiled:
        require_compiler(machine.device, "remove --compile")
    if options.weights == "pretrained":
        require_weights(spec, say_on_stderr)
    methods = options.methods or ("all",)
    plan = plan_speed(
        methods,
        spec,
        options.layers,
        options.work,
        options.steps,
        machine,
        options.compiled,
        threads=options.threads,
        processes=options.processes,
        goals=options.goals,
    )
    require_writable(options.results)
    if options.profile is not None:
        require_file_writable(options.profile)
    with stop_on_signals(once=True):
        found = measure(plan, print_round)
        records = make_records(plan, found)
    with stop_held_back():
        refused = write_records(records, options.results)
    if refused:
        why = "this machine is busy" if found.stop is None else "these times are incomplete"
        say_on_stderr(f"{options.results}: {len(refused)} records not replaced, because {why}")
    if found.stop is not None:
        raise found.stop
    if options.profile is not None:
        profiles = profile_session(plan, found.contestants, print_round)
        operators = {phase: profile_json(rows) for phase, rows in profiles.items()}
        about = {key: value for key, value in report_json(records, found.verdicts).items() if key != "rows"}
        write_atomic(options.profile, json.dumps({**about, "phases": operators}, indent=1) + "\n")
    return report_text(records, options.format, found.verdicts, terminal_width())


def print_round(what: str, done: int, rounds: int) -> None:
    """Print the progress of a measurement to stderr.

    Args:
        what: what is timed, such as `train`.
        done: rounds done so far.
        rounds: how many there will be.
    """
    print(f"{what}: round {done} of {rounds}", file=sys.stderr, flush=True)


def figure_command_text(format: str, plot: Path | None) -> str:
    """Return the data of Figure 2 as text, and draw it if wanted.

    Args:
        format: `markdown` or `json`.
        plot: the file to draw the figure into; None draws nothing.

    Raises:
        UserError: the format or the suffix of the file is unknown, or matplotlib is not installed.
    """
    if plot is not None:
        from harness.cost.figure2_plot import plot_figure2

        plot_figure2(figure2(), plot)
    return figure2_text(format)
