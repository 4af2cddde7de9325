"""Seconds a batch of every method, in one run: what is timed, how it is judged, and the rows of the report.

Training and inference are timed one after the other; within a phase the contestants take turns
(`harness.cost.stopwatch`).
"""

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch

from harness.backbone.loader import Backbone, load_backbone
from harness.backbone.machine import Machine
from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import BackboneSpec
from harness.cost.capture import capture
from harness.cost.compiled import compile_regions
from harness.cost.contestants import Contestant, build_contestants
from harness.cost.depth import estimate, whole_layers, with_layers
from harness.cost.energy import EnergyMeter
from harness.cost.flops import Phase, Workload, count_flops, total_flops
from harness.cost.profile import OperatorTime, profile_steps
from harness.cost.share import share_backbone
from harness.cost.stopwatch import Sample, interleave, matmul_peak, paired_ratio, spread
from harness.cost.yardstick import Yardstick
from harness.errors import UserError
from harness.records import Implementation, PeakMemory, Timing
from harness.report.paper import layout
from harness.run.attach import attach_on_meta, meta_backbone
from harness.run.memory import peak_of
from methods.cost import Costed

TABLE = 2
WARMUP_ROUNDS = 3
PHASES: tuple[Phase, ...] = ("train", "inference")
GRAPHS_A_CONTESTANT = 16
"""More than training, prefill and decoding with a growing mask need."""
LEAST_CPU_SHARE = 0.7
"""Of the threads: a process that got less CPU time was kept waiting by others."""

Key = tuple[str, Implementation, int]
"""Method, implementation, and how often the decoder layers are repeated."""


@dataclass(frozen=True)
class SpeedPlan:
    """What is asked for.

    Attributes:
        spec: the backbone, its depth as asked for.
        plans: one for each method.
        work: the batches.
        steps: rounds that are timed.
        machine: device, dtype, kind of weights.
        compiled: use `torch.compile`.
    """

    spec: BackboneSpec
    plans: Sequence[RunPlan]
    work: Workload
    steps: int
    machine: Machine
    compiled: bool


@dataclass(frozen=True)
class Measurement:
    """What was measured of the machine, and of each contestant.

    Attributes:
        backbone: with no method attached.
        contestants: in the order they ran.
        timings: by method and implementation, then by phase.
        load_average: before anything was loaded; None where the platform does not tell.
        cpu_s_per_s: CPU seconds for each second timed.
        loaded: whether the machine was doing other work.
        gpu_mhz: clock at the end.
        matmul_flops_per_s: measured peak; None without a GPU.
    """

    backbone: Backbone
    contestants: Sequence[Contestant]
    timings: Mapping[tuple[str, Implementation], Mapping[Phase, Timing]]
    load_average: float | None
    cpu_s_per_s: float
    loaded: bool
    gpu_mhz: float | None
    matmul_flops_per_s: float | None


def plan_speed(
    methods: Sequence[str],
    spec: BackboneSpec,
    layers: int | None,
    work: Workload,
    steps: int,
    machine: Machine,
    compiled: bool,
) -> SpeedPlan:
    """Resolve the options.

    Args:
        methods: registry names, or `all`.
        spec: the backbone.
        layers: decoder layers in place of the backbone's own; random weights only.
        work: the batches.
        steps: rounds that are timed.
        machine: device, dtype, kind of weights.
        compiled: use `torch.compile`.

    Raises:
        UserError: an unknown method, one that is not trained, or layers taken from pretrained weights.
    """
    plans = plan_runs(methods, (), (0,), spec, layout(TABLE).task, Overrides())
    for plan in plans:
        if plan.is_oracle:
            raise UserError(f"--methods {plan.method}: is not trained, so it has no speed of its own; leave it out")
        if plan.variant is not None:
            raise UserError(f"--methods {plan.label}: Table {TABLE} has methods as they are alone; leave it out")
    if layers is not None:
        if machine.weights != "random":
            raise UserError(f"--layers {layers}: needs --weights random")
        spec = with_layers(spec, layers)
    return SpeedPlan(spec, plans, work, steps, machine, compiled)


def measure(plan: SpeedPlan, on_round: Callable[[Phase, int], None] = lambda phase, done: None) -> Measurement:
    """Load the backbone once, attach everything, time it.

    Raises:
        UserError: a method that cannot be built at this size, a text too short or too long, too little GPU memory.
    """
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    torch.manual_seed(0)
    machine = plan.machine
    with _too_little_memory():
        backbone = load_backbone(plan.spec, weights=machine.weights, device=machine.device, dtype=machine.dtype)
        contestants = build_contestants(backbone, plan.plans)
        whole = whole_layers(plan.spec)
        doubled = build_contestants(share_backbone(backbone, repeat=2), plan.plans) if whole else []
    if plan.compiled:
        for contestant in (*contestants, *doubled):
            compile_regions(contestant.model)
    meter = EnergyMeter(machine.device)
    try:
        with _too_little_memory(), _graphs_for(len(contestants) + len(doubled)):
            phases = {phase: _phase(phase, plan, contestants, doubled, meter, on_round) for phase in PHASES}
    except ValueError as error:
        raise UserError(f"{plan.spec.display}, text of {plan.work.text_length} tokens: {error}") from error
    peak = matmul_peak(machine.device) if machine.device.type == "cuda" else None
    flops = _flops(plan) if peak else {}
    timed = [sample for found, _ in phases.values() for samples in found.values() for sample in samples]
    share = sum(sample.cpu_s for sample in timed) / sum(sample.seconds for sample in timed)
    timings = {
        key: {phase: _timing(key, phase, *phases[phase], backbone.num_layers, plan, flops, peak) for phase in PHASES}
        for key in ((contestant.method, contestant.implementation) for contestant in contestants)
    }
    threads, on_gpu = torch.get_num_threads(), machine.device.type == "cuda"
    loaded = is_loaded(load_average, share, threads, _cores(), on_gpu=on_gpu)
    return Measurement(backbone, contestants, timings, load_average, share, loaded, meter.clock_mhz(), peak)


@contextmanager
def _graphs_for(contestants: int) -> Iterator[None]:
    """Let every contestant compile.

    All of them run the code of one class, and torch counts graphs by code: past its limit it runs eagerly, with a
    warning. Here the limit fits, and passing it is an error.
    """
    limit = GRAPHS_A_CONTESTANT * contestants
    with torch._dynamo.config.patch(
        recompile_limit=limit, accumulated_recompile_limit=2 * limit, fail_on_recompile_limit_hit=True
    ):
        yield


@contextmanager
def _too_little_memory() -> Iterator[None]:
    """What the allocators of the GPU and of the host raise, as a UserError."""
    try:
        yield
    except RuntimeError as error:
        told = ("DefaultCPUAllocator", "Storage size calculation overflowed")
        if not isinstance(error, torch.cuda.OutOfMemoryError) and not any(text in str(error) for text in told):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"out of memory: {reason}; give a smaller --train-batch, --eval-batch or --layers") from error


def is_loaded(load_average: float | None, cpu_share: float, threads: int, cores: int, *, on_gpu: bool) -> bool:
    """Whether the machine was doing other work.

    Args:
        load_average: runnable processes before the run.
        cpu_share: CPU seconds that the process got for each second timed.
        threads: compute threads.
        cores: cores that the process may use.
        on_gpu: the work was the GPU's, so that the process's own CPU time says nothing.
    """
    busy_before = load_average is not None and load_average > cores / 2
    kept_waiting = not on_gpu and cpu_share < LEAST_CPU_SHARE * threads
    return busy_before or kept_waiting


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _captured(one: Contestant, step: Callable[[], None], pool: Any) -> Callable[[], None]:
    try:
        return capture(step, pool)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserError(
            f"--compile: the training step of {one.method} cannot be captured as a CUDA graph "
            f"({str(error).splitlines()[0]}); leave out {one.method} or --compile"
        ) from error


def _is_captured(plan: SpeedPlan, phase: Phase) -> bool:
    return plan.compiled and phase == "train" and plan.machine.device.type == "cuda"


def _phase(
    phase: Phase,
    plan: SpeedPlan,
    contestants: Sequence[Contestant],
    doubled: Sequence[Contestant],
    meter: EnergyMeter,
    on_round: Callable[[Phase, int], None],
) -> tuple[dict[Key, list[Sample]], dict[Key, PeakMemory]]:
    """Samples and peaks by method, implementation and how often the decoder layers are repeated."""
    device, captured = plan.machine.device, _is_captured(plan, phase)
    pool = torch.cuda.graph_pool_handle() if captured else None
    timed, peaks = {}, {}
    for repeat, group in ((1, contestants), (2, doubled)):
        for one in group:
            one.model.train(phase == "train")
            key = one.method, one.implementation, repeat
            step = one.step(phase, plan.work, capturable=captured)
            timed[key] = _captured(one, step, pool) if captured else step
            if repeat == 1:
                peaks[key] = step
    gc.collect()
    samples = interleave(timed, plan.steps, WARMUP_ROUNDS, device, meter, lambda done: on_round(phase, done))
    return samples, {key: peak_of(step, device) for key, step in peaks.items()}


def profile_measured(
    plan: SpeedPlan, found: Measurement, on_round: Callable[[Phase, int], None] = lambda phase, done: None
) -> dict[Phase, Mapping[str, Sequence[OperatorTime]]]:
    """Where the time goes: a measurement's steps under torch's profiler, by phase, then by `METHOD IMPLEMENTATION`."""
    profiles: dict[Phase, Mapping[str, Sequence[OperatorTime]]] = {}
    with _graphs_for(len(found.contestants)):
        for phase in PHASES:
            steps = {}
            for one in found.contestants:
                one.model.train(phase == "train")
                step = one.step(phase, plan.work, capturable=_is_captured(plan, phase))
                steps[f"{one.method} {one.implementation}"] = step
                step()
            profiles[phase] = profile_steps(steps, plan.machine.device, partial(on_round, phase))
    return profiles


def _flops(plan: SpeedPlan) -> dict[tuple[str, Phase], int]:
    """FLOPs of one batch of each method that counts them, on shapes alone."""
    pristine = meta_backbone(plan.spec)
    found: dict[tuple[str, Phase], int] = {}
    for one in plan.plans:
        backbone, method = attach_on_meta(one, plan.spec, pristine=pristine)
        if isinstance(method, Costed):
            for phase in PHASES:
                found[one.method, phase] = total_flops(count_flops(backbone, method, phase, plan.work))
    return found


def _timing(
    key: tuple[str, Implementation],
    phase: Phase,
    samples: Mapping[Key, Sequence[Sample]],
    peaks: Mapping[Key, PeakMemory],
    layers: int,
    plan: SpeedPlan,
    flops: Mapping[tuple[str, Phase], int],
    matmul_flops_per_s: float | None,
) -> Timing:
    ours, work = samples[*key, 1], plan.work
    seconds = spread([sample.seconds for sample in ours])
    baseline = samples.get((layout(TABLE).baseline or "", "shipped", 1))
    bare = samples[Yardstick.name, "yardstick", 1]
    whole = whole_layers(plan.spec)
    guess = estimate(ours, samples[*key, 2], layers, whole) if whole else None
    batch = work.train_batch if phase == "train" else work.eval_batch
    # The prompt gives the first token; every later one is fed back.
    tokens = batch * (work.text_length + (work.new_tokens - 1 if phase == "inference" else 0))
    joules = [sample.joules for sample in ours if sample.joules is not None]
    peak = peaks[*key, 1]
    counted = flops.get((key[0], phase)) if key[1] == "shipped" else None
    return Timing(
        median_s=seconds.median,
        p10_s=seconds.p10,
        p90_s=seconds.p90,
        n=len(ours),
        ratio=None if baseline is None else paired_ratio(ours, baseline),
        ratio_to_yardstick=paired_ratio(ours, bare),
        tokens_per_s=tokens / seconds.median,
        images_per_s=batch / seconds.median,
        peak_memory_bytes=peak.cuda_allocated or peak.rss,
        peak_reserved_bytes=peak.cuda_reserved,
        layer_s=guess.layer_s if guess else None,
        whole_s=guess.whole_s if guess else None,
        joules=median(joules) if joules else None,
        utilisation=counted / seconds.median / matmul_flops_per_s if counted and matmul_flops_per_s else None,
    )
