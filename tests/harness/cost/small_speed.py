"""The small speed measurement that the tests of this folder run, and its parts."""

from collections.abc import Sequence
from typing import Any

import torch

from harness.backbone.machine import Machine
from harness.config.presets import resolve_spec
from harness.cost.flops import Workload
from harness.cost.plan import SpeedPlan, plan_speed
from harness.cost.stopwatch import Sample
from harness.records import Record
from methods import registry

CPU = torch.device("cpu")
MACHINE = Machine(CPU, torch.float32, "random")
WORK = Workload(text_length=16, labels=3, new_tokens=2, train_batch=2, eval_batch=2)
METHODS = sorted(registry())


def plan(
    methods: Sequence[str] = ("all",),
    layers: int | None = None,
    work: Workload = WORK,
    machine: Machine = MACHINE,
    **more: Any,
) -> SpeedPlan:
    """Return a measurement of two rounds on the tiny backbone."""
    return plan_speed(methods, resolve_spec("tiny"), layers, work, 2, machine, False, **more)


def with_load(records: Sequence[Record], loaded: bool) -> list[Record]:
    """Return the records of a measurement as if the machine had been busy, or as if it had not."""
    return [one.model_copy(update={"speed": one.speed.model_copy(update={"loaded": loaded})}) for one in records]


def sample(seconds: float, cpu_s: float = 0.0) -> Sample:
    """Return a timed step of a CPU."""
    return Sample(seconds, cpu_s, joules=None)
