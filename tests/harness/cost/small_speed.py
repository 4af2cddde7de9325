"""The small speed measurement that the tests of this folder run, and its parts."""

from collections.abc import Sequence

import torch

from harness.backbone.machine import Machine
from harness.config.presets import resolve_spec
from harness.cost.flops import Workload
from harness.cost.plan import SpeedPlan, plan_speed
from harness.cost.stopwatch import Sample
from methods import registry

CPU = torch.device("cpu")
MACHINE = Machine(CPU, torch.float32, "random")
WORK = Workload(text_length=16, labels=3, new_tokens=2, train_batch=2, eval_batch=2)
METHODS = sorted(registry())


def plan(
    methods: Sequence[str] = ("all",), layers: int | None = None, work: Workload = WORK, machine: Machine = MACHINE
) -> SpeedPlan:
    """Return a measurement of two rounds on the tiny backbone."""
    return plan_speed(methods, resolve_spec("tiny"), layers, work, 2, machine, False)


def sample(seconds: float) -> Sample:
    """Return a timed step of which only the wall-clock time matters."""
    return Sample(seconds, cpu_s=0.0, joules=None)
