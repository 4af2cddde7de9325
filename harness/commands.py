"""What the subcommands do, apart from reading their options."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from tabulate import tabulate

from harness.backbone.machine import Machine, resolve_machine, torch_device
from harness.backbone.requirements import require_weights
from harness.config.lookup import named_method, registered_names
from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import BackboneSpec, resolve_spec
from harness.config.recipes import DEFAULT_METHODS
from harness.errors import UserError
from harness.report.paper import PRINTED
from harness.run.runner import Runner
from harness.run.schedule import with_steps
from harness.run.sweep import sweep
from harness.tasks import DataOptions, Task, load_task


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
    if options.steps is not None and options.epochs is not None:
        raise UserError("--steps and --epochs: give one of them")
    spec = resolve_spec(options.model, options.llm, options.clip)
    machine = resolve_machine(options.device, options.dtype, options.weights)
    data = DataOptions(options.data_root, options.limit, options.skip_bad_images, options.full)
    # What costs nothing to find out comes before reading data, and that before loading weights.
    plans = _plans(options, spec)
    if options.dry_run:
        return _dry_run(options, spec, machine, plans, data, console)
    if lack := _missing_data(options, spec):
        raise UserError(f"{lack}: give it, or run `--model tiny`")
    if options.weights == "pretrained":
        require_weights(spec)
    begun = time.perf_counter()
    task = load_task(options.task, data)
    data_s = time.perf_counter() - begun
    runner = Runner(spec, task, machine, data_s, options.results)
    result = sweep(runner, _with_steps(plans, options.steps, task), console, options.force)
    from harness.report.tables import table_text

    table, ablations, _ = PRINTED[options.task]
    console.print()
    print(table_text(options.results, (options.ablations and ablations) or table, spec.name, "markdown"))
    for record in result.failed:
        line = f"{record.status}: {record.label} seed {record.seed}: {record.error}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 1 if result.failed else 0


def _plans(options: RunOptions, spec: BackboneSpec) -> list[RunPlan]:
    names = options.methods or DEFAULT_METHODS
    overrides = Overrides(options.epochs, options.settings)
    return plan_runs(names, options.ablations, options.seeds, spec, options.task, overrides)


def _with_steps(plans: Sequence[RunPlan], steps: int | None, task: Task) -> list[RunPlan]:
    """The plans, so many optimiser steps long; each by its own batch size."""
    if steps is None:
        return list(plans)
    num_examples = len(task.train_examples(plans[0].recipe))
    return [with_steps(plan, steps, num_examples) for plan in plans]


def _missing_data(options: RunOptions, spec: BackboneSpec) -> str | None:
    if options.data_root is None and not spec.shipped:
        return f"--data-root DIR: needed for {spec.display}; only the shipped tiny model comes with its own data"
    return None


def _dry_run(
    options: RunOptions,
    spec: BackboneSpec,
    machine: Machine,
    plans: list[RunPlan],
    data: DataOptions,
    console: Console,
) -> int:
    from harness.run.dryrun import dry_run

    task = None
    lacks = [lack] if (lack := _missing_data(options, spec)) else []
    if not lacks:
        task = load_task(options.task, data)
        plans = _with_steps(plans, options.steps, task)
    found = dry_run(spec, machine, plans, options.task, task)
    for row in found.rows:
        console.print_json(json.dumps(row))
    for line in found.downloads:
        console.print(f"will be downloaded: {line}", highlight=False, markup=False, soft_wrap=True)
    lacks += found.lacks
    for line in lacks:
        console.print(f"missing: {line}", highlight=False, markup=False, soft_wrap=True)
    if not lacks:
        console.print("nothing is missing")
    return 2 if lacks else 0


def methods_text(format: str) -> str:
    """Every registered method: name, title, summary, paper, address."""
    rows = []
    for name in registered_names():
        method = named_method(name)
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
        if "value" in s  # the n-gram counts behind BLEU are for programs
    ]
    return tabulate(rows, headers=("Column", "Value", "n", "Standard error", "Note"), tablefmt="github", floatfmt=".2f")


def predict_text(
    adapter: Path, question: str, image: Path | None, choices: Sequence[str], hint: str, device: str, format: str
) -> str:
    """`predict`: the answer as JSON or as text."""
    from harness.run.predict import load_adapter

    found = load_adapter(adapter, str(torch_device(device))).answer(question, image, choices, hint)
    if format == "json":
        return json.dumps(asdict(found), indent=2)
    return found.text or f"(nothing could be read: the model said {found.raw!r})"


def check_command(task: str, root: Path, full: bool, format: str, console: Console) -> int:
    """`data check`; returns the exit status: 2 where training could not start on the set."""
    from harness.data.check import check_coco, check_scienceqa, print_report

    checks = {"scienceqa": check_scienceqa, "coco": check_coco}
    if task not in checks:
        raise UserError(f"data check {task}: no such data set; give {' or '.join(checks)}")
    report = checks[task](root, full)
    if format == "json":
        print(json.dumps(report.as_dict(), indent=2))
    else:
        print_report(report, console)
    return 0 if report.ok else 2
