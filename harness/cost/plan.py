"""What a speed measurement times: the options of `speed`, resolved to methods, a backbone and batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.backbone.machine import Machine
from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import BackboneSpec
from harness.cost.depth import with_layers
from harness.cost.flops import Workload
from harness.cost.goals import Goal, parse_goal
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
        threads: compute threads of torch; None leaves the choice to torch.
        processes: number of processes, one after another, among which the rounds are divided.
        goals: limits for ratios of times.
    """

    spec: BackboneSpec
    plans: Sequence[RunPlan]
    work: Workload
    steps: int
    machine: Machine
    compiled: bool
    threads: int | None = None
    processes: int = 1
    goals: Sequence[Goal] = ()

    @property
    def parts(self) -> list[range]:
        """The numbers of the rounds of each process."""
        ends = [self.steps * done // self.processes for done in range(self.processes + 1)]
        return [range(first, last) for first, last in pairwise(ends)]


def plan_speed(
    methods: Sequence[str],
    spec: BackboneSpec,
    layers: int | None,
    work: Workload,
    steps: int,
    machine: Machine,
    compiled: bool,
    threads: int | None = None,
    processes: int = 1,
    goals: Sequence[str] = (),
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
        threads: compute threads of torch; None leaves the choice to torch.
        processes: number of processes among which the rounds are divided.
        goals: the texts of `--goal`.

    Raises:
        UserError: a method is unknown, is not trained or is an ablation, `layers` is given for pretrained weights,
            there are more processes than rounds, or a goal is not of the form that `parse_goal` reads.
    """
    if processes > steps:
        raise UserError(f"--processes {processes}: more than the {steps} rounds of --steps; give fewer processes")
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
    return SpeedPlan(spec, plans, work, steps, machine, compiled, threads, processes, [parse_goal(g) for g in goals])
