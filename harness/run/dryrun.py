"""What a run would do: recipe, trainable counts, memory and time estimate, and what is missing. Nothing is loaded."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.backbone.loader import llm_config
from harness.backbone.machine import Machine
from harness.backbone.requirements import GIB, free_memory, hub_reachable, missing_weights
from harness.config.plan import RunPlan
from harness.config.presets import BackboneSpec
from harness.report.paper import PRINTED, paper_value, printed_trainable
from harness.run.attach import attach_on_meta
from harness.run.parameters import count_parameters
from harness.run.schedule import training_length
from harness.tasks import Task

ADAM_BYTES = 16
"""Bytes a trained parameter: float32 value, gradient and two moments."""
ACTIVATIONS_PER_LAYER = 34
"""Values kept for the backward pass, a token and unit of hidden_size in one decoder layer (Korthikanti et al. 2022)."""
TYPICAL_TOKENS = 128


@dataclass(frozen=True)
class Estimate:
    """Rough sizes of one run; see `estimate` for the formulas."""

    step_s: float
    memory_bytes: float


@dataclass(frozen=True)
class DryRun:
    """What was found.

    Attributes:
        rows: one a run: label, seed, recipe, config, trainable counts, the paper's figures, estimate.
        lacks: one line for everything that is missing.
        downloads: one line for everything that the run would fetch first.
    """

    rows: list[dict[str, Any]]
    lacks: list[str]
    downloads: list[str]


def dry_run(
    spec: BackboneSpec, machine: Machine, plans: Sequence[RunPlan], task_name: str, task: Task | None
) -> DryRun:
    """Resolve everything and touch nothing.

    Args:
        spec, machine, plans: what would be run, and where.
        task_name: what on.
        task: the task, its data read; None where there is no data.

    Raises:
        UserError: the language model's config cannot be had, or a method cannot be built at this size.
    """
    rate = _matmul_rate(spec, machine)
    rows = [_describe(plan, spec, machine, task_name, task, rate) for plan in plans]
    absent, downloads = _absent_weights(spec, machine)
    needed = max((row.get("estimated_memory_gib", 0.0) for row in rows), default=0.0)
    free = free_memory(machine.device) / GIB
    if needed > free:
        absent.append(f"about {needed:.1f} GiB of memory on {machine.device.type}, which has {free:.1f} GiB free")
    return DryRun(rows, absent, downloads)


def _absent_weights(spec: BackboneSpec, machine: Machine) -> tuple[list[str], list[str]]:
    """Weights that cannot be had, and weights that would be fetched."""
    if machine.weights == "random":
        return [], []
    if spec.llm is None:
        return [f"pretrained weights, which --model {spec.name} has not: give --weights random"], []
    lacks = missing_weights(spec)
    return ([], lacks) if lacks and hub_reachable() else (lacks, [])


def _describe(
    plan: RunPlan, spec: BackboneSpec, machine: Machine, task_name: str, task: Task | None, rate: float
) -> dict[str, Any]:
    row: dict[str, Any] = {"run": plan.label, "seed": plan.seed, **plan.resolved()}
    if plan.is_oracle:
        return row
    row["tuning"] = plan.recipe.tuning
    counts = count_parameters(*attach_on_meta(plan, spec))
    row["trainable"] = counts.trainable
    row["trainable_paper_convention"] = counts.paper_convention
    row["paper_trainable"] = printed_trainable(plan.method, plan.variant, spec.name)
    table, ablations, column = PRINTED[task_name]
    printed_in = ablations if plan.variant else table
    row[f"paper_{column.lower()}"] = printed_in and paper_value(
        printed_in, plan.method, plan.variant, spec.name, column
    )
    row["learning_rate"] = plan.recipe.learning_rate()
    found = estimate(plan, spec, machine, counts, rate)
    row["estimated_step_s"] = round(found.step_s, 3)
    row["estimated_memory_gib"] = round(found.memory_bytes / GIB, 2)
    row["free_memory_gib"] = round(free_memory(machine.device) / GIB, 2)
    if task is not None:
        row["steps"] = training_length(len(task.train_examples(plan.recipe)), plan.recipe).steps
        row["estimated_train_min"] = round(row["steps"] * found.step_s / 60, 1)
    return row


def estimate(plan: RunPlan, spec: BackboneSpec, machine: Machine, counts: Any, rate: float) -> Estimate:
    """Rough memory and time of a run.

    FLOPs of a step: 4 a frozen parameter and token (forward, and the backward pass through activations); seconds: FLOPs
    over `rate`. Memory: frozen weights, 16 bytes a trained parameter, 34 values a token, layer and unit of width.
    """
    config, recipe = llm_config(spec), plan.recipe
    frozen = counts.total - counts.trainable
    tokens = recipe.batch_size * TYPICAL_TOKENS
    activations = ACTIVATIONS_PER_LAYER * tokens * config.hidden_size * config.num_hidden_layers
    memory = (frozen + activations) * machine.dtype.itemsize + counts.trainable * ADAM_BYTES
    step_s = 4 * frozen * tokens * recipe.accumulation / rate
    return Estimate(step_s, memory)


def _matmul_rate(spec: BackboneSpec, machine: Machine, repeats: int = 3) -> float:
    """FLOP/s of a matrix product of the backbone's own shape on this device, best of a few."""
    config = llm_config(spec)
    shape = (4 * TYPICAL_TOKENS, config.hidden_size), (config.hidden_size, config.intermediate_size)
    a, b = (torch.randn(size, device=machine.device, dtype=machine.dtype) for size in shape)
    best = float("inf")
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        result = a @ b
        result[0, 0].item()
        best = min(best, time.perf_counter() - begun)
    return 2 * a.shape[0] * a.shape[1] * b.shape[1] / best
