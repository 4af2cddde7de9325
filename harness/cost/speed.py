"""Timing every method in one run: seconds per batch in training and in inference.

The two phases are timed one after the other; within a phase the contestants take turns (`harness.cost.stopwatch`).
"""

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from harness.backbone.loader import Backbone, load_backbone
from harness.cost.capture import capture
from harness.cost.compiled import compile_regions
from harness.cost.contestants import Contestant, build_contestants
from harness.cost.depth import whole_layers
from harness.cost.energy import EnergyMeter
from harness.cost.flops import Phase, count_flops, total_flops
from harness.cost.plan import SpeedPlan
from harness.cost.profile import OperatorTime, profile_steps
from harness.cost.share import share_backbone
from harness.cost.stopwatch import interleave, matmul_peak
from harness.cost.timing import Key, PhaseResult, PhaseResults
from harness.errors import UserError
from harness.records import Timing
from harness.run.attach import attach_on_meta, meta_backbone
from harness.run.memory import peak_of
from methods.cost import Costed

WARMUP_ROUNDS = 3
PHASES: tuple[Phase, ...] = ("train", "inference")
GRAPHS_PER_CONTESTANT = 16
"""More graphs than training, prefill and decoding with a growing mask need together."""
LEAST_CPU_SHARE = 0.7
"""A process that got less than this share of its threads' CPU time was kept waiting by other processes."""


@dataclass(frozen=True)
class Measurement:
    """What was measured of the machine and of each contestant.

    Attributes:
        backbone: the backbone with no method attached.
        contestants: the contestants, in the order they ran.
        timings: timings by contestant, then by phase.
        load_average: runnable processes before anything was loaded; None where the platform does not report them.
        cpu_s_per_s: CPU seconds that the process got per second timed.
        loaded: whether the machine was doing other work.
        gpu_mhz: clock of the GPU at the end; None where it is not reported.
        matmul_flops_per_s: measured peak of matrix products; None without a GPU.
    """

    backbone: Backbone
    contestants: Sequence[Contestant]
    timings: Mapping[Key, Mapping[Phase, Timing]]
    load_average: float | None
    cpu_s_per_s: float
    loaded: bool
    gpu_mhz: float | None
    matmul_flops_per_s: float | None


def measure(plan: SpeedPlan, on_round: Callable[[Phase, int], None] = lambda phase, done: None) -> Measurement:
    """Load the backbone once, attach every method, and time them all.

    Args:
        plan: what to time.
        on_round: called after every round with the phase and the number of rounds that are done.

    Raises:
        UserError: a method cannot be built at this size, a text is too short or too long, or memory runs out.
    """
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    torch.manual_seed(0)
    machine = plan.machine
    with _too_little_memory():
        backbone = load_backbone(plan.spec, weights=machine.weights, device=machine.device, dtype=machine.dtype)
        contestants = build_contestants(backbone, plan.plans)
        doubled = None
        if whole_layers(plan.spec) is not None:
            doubled = build_contestants(share_backbone(backbone, repeat=2), plan.plans)
    models = [contestant.model for contestant in (*contestants, *(doubled or ()))]
    if plan.compiled:
        for model in models:
            compile_regions(model)
    meter = EnergyMeter(machine.device)
    try:
        with _too_little_memory(), _graphs_for(len(models)):
            phases = [_time_phase(phase, plan, contestants, doubled, meter, on_round) for phase in PHASES]
    except ValueError as error:
        raise UserError(f"{plan.spec.display}, text of {plan.work.text_length} tokens: {error}") from error
    on_gpu = machine.device.type == "cuda"
    peak = matmul_peak(machine.device) if on_gpu else None
    seconds_at_peak = {key: flops / peak for key, flops in _flops(plan).items()} if peak else {}
    timed = [sample for results in phases for sample in results.samples]
    share = sum(sample.cpu_s for sample in timed) / sum(sample.seconds for sample in timed)
    timings = {
        key: {results.phase: results.timing(key, plan, seconds_at_peak.get((key, results.phase))) for results in phases}
        for key in (contestant.key for contestant in contestants)
    }
    loaded = is_loaded(load_average, share, torch.get_num_threads(), _cores(), on_gpu=on_gpu)
    return Measurement(backbone, contestants, timings, load_average, share, loaded, meter.clock_mhz(), peak)


@contextmanager
def _graphs_for(contestants: int) -> Iterator[None]:
    """Raise torch's limit of compiled graphs, so that every contestant can compile.

    All contestants run the code of one class, and torch counts graphs by code. Past its limit it falls back to eager
    execution with a warning. Here the limit is high enough, and exceeding it is an error.
    """
    limit = GRAPHS_PER_CONTESTANT * contestants
    with torch._dynamo.config.patch(
        recompile_limit=limit, accumulated_recompile_limit=2 * limit, fail_on_recompile_limit_hit=True
    ):
        yield


@contextmanager
def _too_little_memory() -> Iterator[None]:
    """Turn what the allocators of the GPU and of the host raise into a UserError."""
    try:
        yield
    except RuntimeError as error:
        of_the_host = ("DefaultCPUAllocator", "Storage size calculation overflowed")
        if not isinstance(error, torch.cuda.OutOfMemoryError) and not any(text in str(error) for text in of_the_host):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"out of memory: {reason}; give a smaller --train-batch, --eval-batch or --layers") from error


def is_loaded(load_average: float | None, cpu_share: float, threads: int, cores: int, *, on_gpu: bool) -> bool:
    """Whether the machine was doing other work.

    Args:
        load_average: runnable processes before the run; None where the platform does not report them.
        cpu_share: CPU seconds that the process got per second timed.
        threads: compute threads.
        cores: cores that the process may use.
        on_gpu: whether the GPU did the work, so that the process's own CPU time says nothing.
    """
    busy_before = load_average is not None and load_average > cores / 2
    kept_waiting = not on_gpu and cpu_share < LEAST_CPU_SHARE * threads
    return busy_before or kept_waiting


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _captured(contestant: Contestant, step: Callable[[], None], pool: Any) -> Callable[[], None]:
    try:
        return capture(step, pool)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserError(
            f"--compile: the training step of {contestant.method} cannot be captured as a CUDA graph "
            f"({str(error).splitlines()[0]}); leave out {contestant.method} or --compile"
        ) from error


def _is_captured(plan: SpeedPlan, phase: Phase) -> bool:
    return plan.compiled and phase == "train" and plan.machine.device.type == "cuda"


def _time_phase(
    phase: Phase,
    plan: SpeedPlan,
    contestants: Sequence[Contestant],
    doubled: Sequence[Contestant] | None,
    meter: EnergyMeter,
    on_round: Callable[[Phase, int], None],
) -> PhaseResults:
    """Time one phase of all contestants in turns, then measure the peak memory of each.

    Args:
        phase: training or inference.
        plan: what to time.
        contestants: every contestant.
        doubled: the same contestants with every decoder layer twice; None where the backbone is whole.
        meter: of the GPU's energy.
        on_round: called after every round with the phase and the number of rounds that are done.
    """
    device, captured = plan.machine.device, _is_captured(plan, phase)
    pool = torch.cuda.graph_pool_handle() if captured else None
    eager: dict[Key, Callable[[], None]] = {}
    timed: dict[tuple[Key, bool], Callable[[], None]] = {}
    for is_doubled, group in ((False, contestants), (True, doubled or ())):
        for contestant in group:
            contestant.model.train(phase == "train")
            step = contestant.step(phase, plan.work, capturable=captured)
            timed[contestant.key, is_doubled] = _captured(contestant, step, pool) if captured else step
            if not is_doubled:
                eager[contestant.key] = step
    gc.collect()
    samples = interleave(timed, plan.steps, WARMUP_ROUNDS, device, meter, partial(on_round, phase))
    return PhaseResults(
        phase,
        {
            key: PhaseResult(samples[key, False], samples.get((key, True)), peak_of(step, device))
            for key, step in eager.items()
        },
    )


def profile_measured(
    plan: SpeedPlan, found: Measurement, on_round: Callable[[Phase, int], None] = lambda phase, done: None
) -> dict[Phase, Mapping[str, Sequence[OperatorTime]]]:
    """Run a measurement's steps under torch's profiler; operators by phase, then by `METHOD IMPLEMENTATION`."""
    profiles: dict[Phase, Mapping[str, Sequence[OperatorTime]]] = {}
    with _graphs_for(len(found.contestants)):
        for phase in PHASES:
            steps = {}
            for contestant in found.contestants:
                contestant.model.train(phase == "train")
                step = contestant.step(phase, plan.work, capturable=_is_captured(plan, phase))
                steps[" ".join(contestant.key)] = step
                step()
            profiles[phase] = profile_steps(steps, plan.machine.device, partial(on_round, phase))
    return profiles


def _flops(plan: SpeedPlan) -> dict[tuple[Key, Phase], int]:
    """FLOPs per batch of each method that counts them, computed on shapes alone."""
    pristine = meta_backbone(plan.spec)
    found: dict[tuple[Key, Phase], int] = {}
    for one in plan.plans:
        backbone, method = attach_on_meta(one, plan.spec, pristine=pristine)
        if isinstance(method, Costed):
            for phase in PHASES:
                found[Key(one.method, "shipped"), phase] = total_flops(count_flops(backbone, method, phase, plan.work))
    return found
