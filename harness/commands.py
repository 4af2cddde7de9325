"""What the subcommands do, apart from reading their options."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tabulate import tabulate

from harness.errors import UserError
from harness.plan import Overrides, RunPlan, plan_runs
from harness.presets import WEIGHTS, BackboneSpec, resolve_spec
from harness.recipes import DEFAULT_METHODS
from harness.runner import Machine, Runner
from harness.sweep import sweep
from harness.tasks import DataOptions, load_task
from methods import get_method, registry

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TABLE_OF_TASK = {"scienceqa": 1, "coco": 3}
ABLATION_TABLE = 4


@dataclass(frozen=True)
class RunOptions:
    """The options of `run`, see its help."""

    methods: tuple[str, ...]
    ablations: tuple[str, ...]
    model: str
    task: str
    seeds: tuple[int, ...]
    data_root: Path | None
    llm: str | None
    clip: str | None
    weights: str
    limit: int | None
    epochs: float | None
    steps: int | None
    settings: Mapping[str, Any]
    device: str
    dtype: str
    results: Path
    skip_bad_images: bool
    full: bool
    force: bool
    dry_run: bool


def run_command(options: RunOptions, console: Console) -> int:
    """`run`; returns the exit status."""
    spec = resolve_spec(options.model, options.llm, options.clip)
    machine = _machine(options)
    data = DataOptions(options.data_root, options.limit, options.skip_bad_images, options.full)
    if options.dry_run:
        return _dry_run(options, spec, machine, data, console)
    if options.data_root is None and not spec.shipped:
        raise UserError(f"--model {spec.name}: needs real data; give --data-root DIR, or run `--model tiny`")
    begun = time.perf_counter()
    task = load_task(options.task, data)
    data_s = time.perf_counter() - begun
    plans = _plans(options, spec, task)
    runner = Runner(spec, task, machine, data_s, options.results)
    result = sweep(runner, plans, console, options.force)
    from harness.tables import table_text

    table = ABLATION_TABLE if options.ablations else TABLE_OF_TASK[options.task]
    console.print()
    print(table_text(options.results, table, spec.name, "markdown"))
    for record in result.failed:
        console.print(f"failed: {record.label} seed {record.seed}: {record.error}", highlight=False)
    return 1 if result.failed else 0


def _plans(options: RunOptions, spec: BackboneSpec, task: Any) -> list[RunPlan]:
    def make(epochs: float | None) -> list[RunPlan]:
        overrides = Overrides(epochs, options.settings)
        names = options.methods or DEFAULT_METHODS
        return plan_runs(names, options.ablations, options.seeds, spec, options.task, overrides)

    if options.steps is not None and options.epochs is not None:
        raise UserError("--steps and --epochs: give one of them")
    plans = make(options.epochs)
    if options.steps is None or task is None:
        return plans
    from harness.train import steps_per_epoch

    recipe = plans[0].recipe
    return make(options.steps / steps_per_epoch(len(task.train_examples(recipe)), recipe))


def _machine(options: RunOptions) -> Machine:
    if options.weights not in WEIGHTS:
        raise UserError(f"--weights {options.weights}: give {' or '.join(WEIGHTS)}")
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: no such device; give cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: no GPU that torch can use here; give --device cpu")
    dtype = options.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: give {', '.join(DTYPES)} or auto")
    return Machine(device, DTYPES[dtype], options.weights)


def _dry_run(
    options: RunOptions, spec: BackboneSpec, machine: Machine, data: DataOptions, console: Console
) -> int:
    from harness.dryrun import dry_run

    if options.data_root is None and not spec.shipped:
        lacks = [f"--model {spec.name} needs real data: give --data-root DIR"]
        rows, more = dry_run(spec, machine, _plans(options, spec, None), None)
        lacks += more
    else:
        task = load_task(options.task, data)
        rows, lacks = dry_run(spec, machine, _plans(options, spec, task), task)
    for row in rows:
        console.print_json(json.dumps(row))
    for line in lacks:
        console.print(f"missing: {line}", highlight=False)
    if not lacks:
        console.print("nothing is missing")
    return 2 if lacks else 0


def methods_text(format: str) -> str:
    """Every registered method: name, title, summary, paper, address."""
    rows = []
    for name in registry():
        method = get_method(name)
        source = method.source
        rows.append(
            {
                "method": name,
                "title": method.title,
                "what": source.summary,
                "paper": source.paper,
                "url": source.url,
                "ablations": list(getattr(method, "ablations", {})),
            }
        )
    if format == "json":
        return json.dumps(rows, indent=2)
    return tabulate(
        [(r["method"], r["title"], r["what"], r["paper"], r["url"]) for r in rows],
        headers=("Method", "Title", "What", "Paper", "URL"),
        tablefmt="github",
    )


def scores_text(scores: Mapping[str, Any], format: str) -> str:
    """Scores by column, as JSON or as a table."""
    if format == "json":
        return json.dumps(scores, indent=2)
    rows = [
        (name, "n/a" if s["value"] is None else f"{s['value']:.2f}", s["n"], s["stderr"], s.get("reason") or "")
        for name, s in scores.items()
    ]
    return tabulate(rows, headers=("Column", "Value", "n", "Standard error", "Note"), tablefmt="github", floatfmt=".2f")


def check_command(task: str, root: Path, full: bool, format: str, console: Console) -> int:
    """`data check`; returns the exit status: 2 where training could not start on the set."""
    if task != "scienceqa":
        raise UserError(f"data check {task}: no such data set; give scienceqa")
    from harness.data.check import check_scienceqa, print_report

    report = check_scienceqa(root, full)
    if format == "json":
        print(json.dumps(report.as_dict(), indent=2))
    else:
        print_report(report, console)
    return 0 if report.ok else 2
