"""What runs would take, without making them: sizes, memory, time, disk, and everything that is missing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.backbone.language_model import llm_config
from harness.backbone.machine import Machine
from harness.backbone.requirements import GIB, free_memory
from harness.backbone.weights import missing_weights
from harness.config.plan import RunPlan
from harness.config.presets import BackboneSpec
from harness.errors import UserError
from harness.hub import hub_reachable
from harness.numbers import readable_memory
from harness.processes import launched_processes, shards
from harness.report.paper import paper_value, printed_trainable
from harness.run.attach import attach_on_meta
from harness.run.checkpoint import KEPT
from harness.run.checks import PlanChecks
from harness.run.downloads import Download, downloads_of_weights
from harness.run.duration import Paces
from harness.run.footprint import Sizes, options_that_fit
from harness.run.parameters import count_parameters
from harness.run.schedule import training_length
from harness.run.watch import VALIDATED
from harness.tasks.contract import Task
from harness.tasks.facts import task_facts

ADAPTER_BYTES, CHECKPOINT_BYTES = 4, 12
"""Bytes per trained parameter on disk: in an adapter the value, in a checkpoint also Adam's two moments."""


class Faults:
    """Collects what is missing or wrong, so that all of it can be named and not only the first."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Note one fault, once."""
        if line not in self.lines:
            self.lines.append(line)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Note a user error of the body, and go on behind it."""
        try:
            yield
        except UserError as error:
            self.add(str(error))


@dataclass(frozen=True)
class DryRun:
    """What a dry run found.

    Attributes:
        rows: one JSON object per run: label, seed, recipe, config, parameter counts, the paper's figures, estimates.
        downloads: what the runs would download first.
        disk_bytes: what the adapters of all runs, and the checkpoints of those side by side, take on the disk.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    downloads: list[Download] = field(default_factory=list)
    disk_bytes: int = 0

    @property
    def known_hours(self) -> list[float]:
        """Hours of each run whose hours are known."""
        return [row["hours"] for row in self.rows if row["hours"] is not None]

    @property
    def hours(self) -> float | None:
        """Hours of all runs, one after another; None if those of a run are not known."""
        return sum(self.known_hours) if len(self.known_hours) == len(self.rows) else None


def dry_run(
    spec: BackboneSpec,
    machine: Machine,
    plans: Sequence[RunPlan],
    task_name: str,
    task: Task | None,
    faults: Faults,
    results_dir: Path,
    threads: int,
    micro_batch: int | None = None,
    steps: int | None = None,
    *,
    is_here: bool = True,
    jobs: int = 1,
    eval_every: int = 0,
) -> DryRun:
    """Estimate what the runs would take and find what is missing. No file is written.

    Args:
        spec: the backbone.
        machine: the device and dtype that the runs would use.
        plans: the runs.
        task_name: name of the task.
        task: the task with its data read; None without data, in which case the recipes give no number of steps.
        faults: receives what is missing.
        results_dir: folder of the records, whose times are used.
        threads: compute threads of a run.
        micro_batch: samples per forward pass in training; None for the largest number that fits into memory.
        steps: optimiser steps of each run, to which the plans are already set if there is data; None for as many as
            the recipes say.
        is_here: whether the runs are made on this machine. Of a GPU of another one, the memory and what fits into it
            are not known.
        jobs: runs that are made side by side.
        eval_every: optimiser steps between two validations during training; 0 never validates.
    """
    missing, downloads = _unavailable_weights(spec, machine)
    for line in missing:
        faults.add(line)
    paces = checks = None
    with faults.collected():
        llm_config(spec)
        loadable = not missing and not downloads
        paces = Paces(spec, machine, threads, results_dir, task, loadable, is_here)
        checks = PlanChecks(spec, task, machine, eval_every) if task is not None and loadable else None
    rows: list[dict[str, Any]] = []
    for plan in plans:
        row = _named(plan, spec, task_name, steps)
        rows.append(row)
        with faults.collected():
            if checks is not None:
                checks(plan)
            if paces is not None and not plan.is_oracle:
                free = free_memory(machine.device) if is_here else None
                row |= _described(plan, spec, machine, task, paces, micro_batch, free, eval_every)
    if rows and is_here:
        _note_memory(max(rows, key=lambda row: row["memory_gib"] or 0.0), machine, faults)
    trained = [row["trainable"] or 0 for row in rows]
    disk = ADAPTER_BYTES * sum(trained) + (KEPT + 1) * CHECKPOINT_BYTES * sum(sorted(trained)[-jobs:])
    return DryRun(rows, downloads, disk)


def _note_memory(row: dict[str, Any], machine: Machine, faults: Faults) -> None:
    """Note that the largest run does not fit into memory, if it does not, and the options that make it fit."""
    needed, free = (row["memory_gib"] or 0.0) * GIB, free_memory(machine.device)
    if needed > free:
        mended = f"{row['fits_with']} makes it fit" if row["fits_with"] else "no option makes it fit: take a larger one"
        where = f"{machine.device.type}, which has {readable_memory(free)} free"
        faults.add(f"about {readable_memory(needed)} of memory on {where}; {mended}")


def _unavailable_weights(spec: BackboneSpec, machine: Machine) -> tuple[list[str], list[Download]]:
    """Return the weights that are missing, and those that are not on this machine but can be downloaded."""
    if machine.weights == "random":
        return [], []
    missing = missing_weights(spec)
    if missing.sources and hub_reachable():
        return missing.faults, downloads_of_weights(missing)
    return missing.lines, []


def _named(plan: RunPlan, spec: BackboneSpec, task_name: str, steps: int | None) -> dict[str, Any]:
    """Return the row of a run with what is known without a backbone; what is not known is None."""
    facts = task_facts(task_name)
    table = facts.ablation_table if plan.variant else facts.table
    unknown = ("step_s", "hours", "hours_source", "memory_gib", "fits_with", "micro_batch", "trainable")
    return {
        "run": plan.label,
        "seed": plan.seed,
        "steps": None if plan.is_oracle else steps,
        **dict.fromkeys(unknown),
        "paper": table and paper_value(table, plan.method, plan.variant, spec.name, facts.summary),
        "paper_trainable": printed_trainable(plan.method, plan.variant, spec.name),
        **plan.resolved(),
        "tuning": plan.recipe.tuning,
        "learning_rate": plan.recipe.learning_rate,
    }


def _described(
    plan: RunPlan,
    spec: BackboneSpec,
    machine: Machine,
    task: Task | None,
    paces: Paces,
    micro_batch: int | None,
    free: int | None,
    eval_every: int,
) -> dict[str, Any]:
    """Return what the row of a run says about sizes, memory and time.

    Args:
        plan, spec, machine, task, micro_batch, eval_every: as in `dry_run`.
        paces: tells how fast the run is.
        free: bytes of free memory; None if not known. The memory of the run is then the least that it can take.
    """
    counts = count_parameters(*attach_on_meta(plan, spec))
    sizes = Sizes(spec, machine.dtype, counts, shards(), launched_processes())
    peak = sizes.that_fits(plan.recipe, micro_batch, free or 0)
    fits = free is None or peak.bytes <= free
    found: dict[str, Any] = {
        "trainable": counts.trainable,
        "trainable_paper_convention": counts.paper_convention,
        "micro_batch": peak.micro_batch,
        "memory_gib": peak.bytes / GIB,
        "free_memory_gib": None if free is None else free / GIB,
    }
    if free is not None and not fits and (mended := options_that_fit(sizes, plan.recipe, micro_batch, free)):
        options, smaller = mended
        found["fits_with"] = f"{options} (about {readable_memory(smaller.bytes)})"
    if task is not None:
        found["steps"] = training_length(len(task.train_examples(plan.recipe)), plan.recipe).steps
    pace = paces.of(plan, micro_batch, micro_batch if free is None else peak.micro_batch) if fits else None
    if pace is None:
        return found
    found |= {"step_s": round(pace.step_s, 3), "hours_source": pace.source}
    if task is not None:
        seconds = found["steps"] * pace.step_s
        if pace.answer_s is None:
            found["hours_source"] += ", training only"
        else:
            answers = task.evaluation_size(plan.recipe)
            if eval_every:
                of_split = task.data(plan.recipe).split_sizes.get("val", 0)
                answers += found["steps"] // eval_every * min(VALIDATED, of_split)
            seconds += answers * pace.answer_s
        found["hours"] = seconds / 3600
    return found
