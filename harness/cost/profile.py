"""Where the time of a step goes: torch's profiler over every contestant, operator by operator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

ROUNDS = 5
MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


@dataclass(frozen=True)
class OperatorTime:
    """One operator in one step; matrix products apart by the shapes of their operands.

    Attributes:
        operator: its name.
        shapes: of the operands of a matrix product; empty for any other operator.
        calls: in one step.
        self_ms: milliseconds in it, without what it calls: of the device's time on a GPU, of a thread's on a CPU.
    """

    operator: str
    shapes: str
    calls: int
    self_ms: float


def profile_steps(
    steps: Mapping[str, Callable[[], None]], device: torch.device, on_round: Callable[[int], None] = lambda done: None
) -> dict[str, list[OperatorTime]]:
    """The operators of each step, slowest first: median of `ROUNDS` rounds, the steps taking turns.

    Args:
        steps: what to run, by name; warmed up.
        device: where the steps compute.
        on_round: told after each round how many are done.
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
                # A kernel has an event of its own beside that of the operator that launched it, which holds its time.
                if event.device_type != DeviceType.CPU:
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
    rows = [
        OperatorTime(operator, shapes, round(median(calls for calls, _ in seen)), median(ms for _, ms in seen))
        for (operator, shapes), seen in operators.items()
    ]
    return sorted((row for row in rows if row.self_ms > 0), key=lambda row: -row.self_ms)


def profile_json(found: Mapping[str, Sequence[OperatorTime]]) -> dict[str, Any]:
    """By contestant: milliseconds in all, and the operators."""
    return {
        name: {"self_ms": round(sum(row.self_ms for row in rows), 3), "operators": [_row(row) for row in rows]}
        for name, rows in found.items()
    }


def _row(row: OperatorTime) -> dict[str, Any]:
    return {**vars(row), "self_ms": round(row.self_ms, 3)}
