"""What a speed measurement times: the options of `speed`, resolved to methods, a backbone and batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.backbone.machine import Machine
from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import BackboneSpec
from harness.cost.depth import with_layers
from harness.cost.flops import Workload
from harness.errors import UserError
from harness.report.paper import Table, layout

TABLE: Table = 2
"""The table of the paper that prints times and memory."""


@dataclass(frozen=True)
class SpeedPlan:
    """The resolved options of a speed measurement.

    Attributes:
        spec: the backbone, with the chosen number of decoder layers.
        plans: one plan per method.
        work: the sizes of the batches.
        steps: number of rounds to time.
        machine: device, dtype and kind of weights (random or pretrained).
        compiled: whether to use `torch.compile`.
    """

    spec: BackboneSpec
    plans: Sequence[RunPlan]
    work: Workload
    steps: int
    machine: Machine
    compiled: bool


def plan_speed(
    methods: Sequence[str],
    spec: BackboneSpec,
    layers: int | None,
    work: Workload,
    steps: int,
    machine: Machine,
    compiled: bool,
) -> SpeedPlan:
    """Resolve the options of `speed`.

    Args:
        methods: registry names; `all` stands for every registered method.
        spec: the backbone.
        layers: number of decoder layers; None takes the backbone's own.
        work: the sizes of the batches.
        steps: number of rounds to time.
        machine: device, dtype and kind of weights (random or pretrained).
        compiled: whether to use `torch.compile`.

    Raises:
        UserError: a method is unknown, is not trained or is an ablation, or `layers` is given for pretrained weights.
    """
    plans = plan_runs(methods, (), (0,), spec, layout(TABLE).task, Overrides())
    for plan in plans:
        if plan.is_oracle:
            raise UserError(f"--methods {plan.method}: is not trained, so it has no training step to time; remove it")
        if plan.variant is not None:
            raise UserError(f"--methods {plan.label}: Table {TABLE} has no ablations; remove it")
    if layers is not None:
        if machine.weights != "random":
            raise UserError(f"--layers {layers}: needs --weights random, because pretrained weights have a fixed depth")
        spec = with_layers(spec, layers)
    return SpeedPlan(spec, plans, work, steps, machine, compiled)
