"""What a speed measurement is asked for: from options to the methods, the backbone and the batches to time."""

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
"""The paper's table of costs."""


@dataclass(frozen=True)
class SpeedPlan:
    """What a speed measurement is asked for, resolved.

    Attributes:
        spec: the backbone, with the depth that was asked for.
        plans: one plan per method.
        work: the sizes of the batches.
        steps: rounds to time.
        machine: device, dtype and kind of weights.
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
        methods: registry names, or `all`.
        spec: the backbone.
        layers: decoder layers in place of the backbone's own number; needs random weights.
        work: the sizes of the batches.
        steps: rounds to time.
        machine: device, dtype and kind of weights.
        compiled: whether to use `torch.compile`.

    Raises:
        UserError: a method is unknown or is not trained, or `layers` was given with pretrained weights.
    """
    plans = plan_runs(methods, (), (0,), spec, layout(TABLE).task, Overrides())
    for plan in plans:
        if plan.is_oracle:
            raise UserError(f"--methods {plan.method}: is not trained, so it has no speed of its own; leave it out")
        if plan.variant is not None:
            raise UserError(f"--methods {plan.label}: Table {TABLE} has no ablations; leave it out")
    if layers is not None:
        if machine.weights != "random":
            raise UserError(f"--layers {layers}: needs --weights random")
        spec = with_layers(spec, layers)
    return SpeedPlan(spec, plans, work, steps, machine, compiled)
