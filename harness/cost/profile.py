"""Time per operator in a step of every contestant, from torch's profiler."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ROUNDS = 5
"""Profiled rounds; the medians over them are reported."""
MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
"""Operators that are listed separately by the shapes of their operands."""


@dataclass(frozen=True)
class OperatorTime:
    """The time of one operator in one step. Matrix products of different shapes are listed separately.

    Attributes:
        operator: name of the operator.
        shapes: shapes of the operands of a matrix product; empty for any other operator.
        calls: calls per step.
        self_ms: milliseconds per step in the operator itself, without the operators that it calls. On a GPU this is
            device time, on a CPU the time of the calling thread.
    """

    operator: str
    shapes: str
    calls: int
    self_ms: float


def profile_steps(
    steps: Mapping[str, Callable[[], None]], device: torch.device, on_round: Callable[[int], None] = lambda done: None
) -> dict[str, list[OperatorTime]]:
    """Profile `ROUNDS` rounds in which the steps take turns, and return the medians.

    Args:
        steps: the steps by name. Each must have run before, so that nothing that happens once is profiled.
        device: where the steps compute.
        on_round: called after every round with the number of rounds done so far.

    Returns:
        The operators of each step, slowest first.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    found: dict[str, dict[tuple[str, str], list[tuple[int, float]]]] = {name: {} for name in steps}
    for done in range(1, ROUNDS + 1):
        for name, step in steps.items():
            with profile(activities=activities, record_shapes=True) as profiler:
                step()
            totals: dict[tuple[str, str], tuple[int, float]] = {}
            for event in profiler.key_averages(group_by_input_shape=True):
                # Kernels of a GPU have events too. Their time is already counted for the operators that launch them.
                if event.device_type.name != "CPU":
                    continue
                key = (event.key, str(event.input_shapes[:3]) if event.key in MATRIX_PRODUCTS else "")
                calls, milliseconds = totals.get(key, (0, 0.0))
                own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
                totals[key] = (calls + event.count, milliseconds + own / 1000)
            for key, value in totals.items():
                found[name].setdefault(key, []).append(value)
        on_round(done)
    return {name: _summary(operators) for name, operators in found.items()}


def _summary(operators: Mapping[tuple[str, str], list[tuple[int, float]]]) -> list[OperatorTime]:
    """Return the medians over the rounds of every operator that took time, slowest first."""
    rows = [
        OperatorTime(operator, shapes, round(median(calls for calls, _ in seen)), median(ms for _, ms in seen))
        for (operator, shapes), seen in operators.items()
    ]
    return sorted((row for row in rows if row.self_ms > 0), key=lambda row: -row.self_ms)


def profile_json(found: Mapping[str, Sequence[OperatorTime]]) -> dict[str, Any]:
    """Return the sum in milliseconds and the list of operators, by name of the step."""
    return {
        name: {"self_ms": round(sum(row.self_ms for row in rows), 3), "operators": [_row(row) for row in rows]}
        for name, rows in found.items()
    }


def _row(row: OperatorTime) -> dict[str, Any]:
    return {**vars(row), "self_ms": round(row.self_ms, 3)}
