"""What a run would take, without loading weights: recipe, trainable parameters, memory, time, and what is missing."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.backbone.language_model import llm_config
from harness.backbone.machine import Machine
from harness.backbone.requirements import GIB, free_memory
from harness.backbone.weights import missing_weights
from harness.config.plan import RunPlan
from harness.config.presets import BackboneSpec
from harness.hub import hub_reachable
from harness.records import Parameters
from harness.report.paper import paper_value, printed_trainable
from harness.run.attach import attach_on_meta
from harness.run.execution import MicroBatch
from harness.run.parameters import count_parameters
from harness.run.schedule import training_length
from harness.tasks.contract import Task
from harness.tasks.facts import task_facts

ADAM_BYTES = 16
"""Bytes per trained parameter: the float32 value, its gradient and Adam's two moments."""
ACTIVATIONS_PER_LAYER = 34
"""Values kept for the backward pass per decoder layer, token and unit of hidden_size (Korthikanti et al. 2022)."""
TYPICAL_TOKENS = 128
"""Text tokens per sample that the estimate assumes."""


@dataclass(frozen=True)
class Estimate:
    """Rough time and memory of one run; `estimate` has the formulas.

    Attributes:
        step_s: seconds per optimiser step.
        memory_bytes: peak memory on the device.
        micro_batch: samples per forward pass that the memory is for.
    """

    step_s: float
    memory_bytes: float
    micro_batch: int


@dataclass(frozen=True)
class DryRun:
    """What a dry run found.

    Attributes:
        rows: one JSON object per run: label, seed, recipe, config, parameter counts, the paper's figures, estimate.
        missing: one line for each thing that the runs need and that is missing.
        downloads: one line for each thing that the runs would download first.
    """

    rows: list[dict[str, Any]]
    missing: list[str]
    downloads: list[str]


def dry_run(
    spec: BackboneSpec,
    machine: Machine,
    plans: Sequence[RunPlan],
    task_name: str,
    task: Task | None,
    micro_batch: int | None = None,
) -> DryRun:
    """Estimate what the runs would take and find what is missing. No weights are loaded and no file is written.

    Args:
        spec: the backbone.
        machine: the device and dtype that the runs would use.
        plans: the runs.
        task_name: name of the task.
        task: the task with its data read; None without data, in which case no row has a number of steps.
        micro_batch: samples per forward pass in training; None for the largest number that fits into memory.

    Raises:
        UserError: the language model's config is unavailable, or a method cannot be built at this size.
    """
    rate = _matmul_rate(spec, machine)
    rows = [_describe(plan, spec, machine, task_name, task, rate, micro_batch) for plan in plans]
    missing, downloads = _unavailable_weights(spec, machine)
    needed = max((row.get("estimated_memory_gib", 0.0) for row in rows), default=0.0)
    free = free_memory(machine.device) / GIB
    if needed > free:
        missing.append(f"about {needed:.1f} GiB of memory on {machine.device.type}, which has {free:.1f} GiB free")
    return DryRun(rows, missing, downloads)


def _unavailable_weights(spec: BackboneSpec, machine: Machine) -> tuple[list[str], list[str]]:
    """Return the weights that are missing, and those that are not on this machine but can be downloaded."""
    if machine.weights == "random":
        return [], []
    if spec.llm is None:
        return [f"pretrained weights, because --model {spec.name} has none; give --weights random"], []
    missing = missing_weights(spec)
    if missing.sources and hub_reachable():
        return missing.faults, [source.offer() for source in missing.sources]
    return missing.lines, []


def _describe(
    plan: RunPlan,
    spec: BackboneSpec,
    machine: Machine,
    task_name: str,
    task: Task | None,
    rate: float,
    micro_batch: int | None,
) -> dict[str, Any]:
    """Return the row of one run."""
    row: dict[str, Any] = {"run": plan.label, "seed": plan.seed, **plan.resolved()}
    if plan.is_oracle:
        return row
    row["tuning"] = plan.recipe.tuning
    counts = count_parameters(*attach_on_meta(plan, spec))
    row["trainable"] = counts.trainable
    row["trainable_paper_convention"] = counts.paper_convention
    row["paper_trainable"] = printed_trainable(plan.method, plan.variant, spec.name)
    facts = task_facts(task_name)
    table = facts.ablation_table if plan.variant else facts.table
    row[f"paper_{facts.summary.lower()}"] = table and paper_value(
        table, plan.method, plan.variant, spec.name, facts.summary
    )
    row["learning_rate"] = plan.recipe.learning_rate
    found = _estimate_that_fits(plan, spec, machine, counts, rate, micro_batch)
    row["estimated_step_s"] = round(found.step_s, 3)
    row["micro_batch"] = found.micro_batch
    row["estimated_memory_gib"] = round(found.memory_bytes / GIB, 2)
    row["free_memory_gib"] = round(free_memory(machine.device) / GIB, 2)
    if task is not None:
        row["steps"] = training_length(len(task.train_examples(plan.recipe)), plan.recipe).steps
        row["estimated_train_min"] = round(row["steps"] * found.step_s / 60, 1)
    return row


def _estimate_that_fits(
    plan: RunPlan, spec: BackboneSpec, machine: Machine, counts: Parameters, rate: float, micro_batch: int | None
) -> Estimate:
    """Return the estimate at the given micro-batch, or, without one, at the largest that fits into free memory."""
    size = MicroBatch.of(micro_batch, plan.recipe.batch_size)
    while True:
        found = estimate(plan, spec, machine, counts, rate, size.size)
        if not size.automatic or size.size == 1 or found.memory_bytes <= free_memory(machine.device):
            return found
        size.halve()


def estimate(
    plan: RunPlan, spec: BackboneSpec, machine: Machine, counts: Parameters, rate: float, micro_batch: int
) -> Estimate:
    """Return the rough time and memory of a run.

    The FLOPs of a forward and backward pass are 4 per frozen parameter and token: 2 for the forward pass and 2 for the
    gradients of the activations. Memory holds the frozen weights, 16 bytes per trained parameter, and 34 values per
    decoder layer, token and unit of hidden_size.

    Args:
        plan: the run.
        spec: the backbone; only its sizes are used.
        machine: the dtype of the frozen weights.
        counts: parameters of the backbone with the method attached.
        rate: FLOP/s of the device.
        micro_batch: samples per forward pass.
    """
    config, recipe = llm_config(spec), plan.recipe
    frozen = counts.total - counts.trainable
    activations = ACTIVATIONS_PER_LAYER * micro_batch * TYPICAL_TOKENS * config.hidden_size * config.num_hidden_layers
    memory = (frozen + activations) * machine.dtype.itemsize + counts.trainable * ADAM_BYTES
    step_s = 4 * frozen * recipe.batch_size * TYPICAL_TOKENS / rate
    return Estimate(step_s, memory, micro_batch)


def _matmul_rate(spec: BackboneSpec, machine: Machine, repeats: int = 3) -> float:
    """Return the FLOP/s of a matrix product with the shape of the backbone's FFN: the best of `repeats` + 1 timings."""
    config = llm_config(spec)
    shape = (4 * TYPICAL_TOKENS, config.hidden_size), (config.hidden_size, config.intermediate_size)
    a, b = (torch.randn(size, device=machine.device, dtype=machine.dtype) for size in shape)
    best = float("inf")
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        result = a @ b
        result[0, 0].item()  # waits until the device has finished
        best = min(best, time.perf_counter() - begun)
    return 2 * a.shape[0] * a.shape[1] * b.shape[1] / best
