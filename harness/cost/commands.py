"""What the subcommands `speed` and `flops --figure2` do, apart from reading their options."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.backbone.machine import resolve_machine
from harness.backbone.requirements import require_weights
from harness.config.presets import resolve_spec
from harness.cost.figure2 import figure2, figure2_text
from harness.cost.flops import Phase, Workload
from harness.cost.plan import plan_speed
from harness.cost.profile import ROUNDS, profile_json
from harness.cost.speed import WARMUP_ROUNDS, measure, profile_measured
from harness.cost.speed_report import make_records, report_json, report_text, write_records
from harness.files import require_writable, write_atomic


@dataclass(frozen=True)
class SpeedOptions:
    """The options of `speed`, see its help."""

    methods: tuple[str, ...]
    model: str
    layers: int | None
    weights: str
    work: Workload
    steps: int
    device: str
    dtype: str
    compiled: bool
    profile: Path | None
    format: str
    results: Path


def speed_text(options: SpeedOptions, console: Console) -> str:
    """`speed`: measure, write the records, and say what they say."""
    spec = resolve_spec(options.model)
    machine = resolve_machine(options.device, options.dtype, options.weights)
    if options.weights == "pretrained":
        require_weights(spec)
    methods = options.methods or ("all",)
    plan = plan_speed(methods, spec, options.layers, options.work, options.steps, machine, options.compiled)

    def tell(what: str, rounds: int, phase: Phase, done: int) -> None:
        console.print(f"{phase}: {what} {done} of {rounds}", highlight=False)

    require_writable(options.results)
    if options.profile is not None:
        require_writable(options.profile.parent)
    found = measure(plan, partial(tell, "round", WARMUP_ROUNDS + plan.steps))
    records = make_records(plan, found)
    if refused := write_records(records, options.results):
        console.print(f"{len(refused)} records of a quiet machine stay in {options.results}", highlight=False)
    if options.profile is not None:
        profiles = profile_measured(plan, found, partial(tell, "profile", ROUNDS))
        operators = {phase: profile_json(rows) for phase, rows in profiles.items()}
        about = {key: value for key, value in report_json(records).items() if key != "rows"}
        write_atomic(options.profile, json.dumps({**about, "phases": operators}, indent=1) + "\n")
    return report_text(records, options.format)


def figure_command_text(format: str, plot: Path | None) -> str:
    """`flops --figure2`: its data as text; `plot` also draws it."""
    if plot is not None:
        from harness.cost.figure2_plot import plot_figure2

        plot_figure2(figure2(), plot)
    return figure2_text(format)
