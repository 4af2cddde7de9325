"""Time all methods in one process: seconds per batch in training and in inference.

Training is timed first, then inference. Within a phase the contestants take turns (`harness.cost.stopwatch`).
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
"""Rounds that run before the timed ones."""
PHASES: tuple[Phase, ...] = ("train", "inference")
GRAPHS_PER_CONTESTANT = 16
"""Compiled graphs allowed per contestant. Training, prefill and decoding with a growing mask together need fewer."""
_HOST_ALLOCATION_FAILURES = ("DefaultCPUAllocator", "Storage size calculation overflowed")
"""Parts of the messages with which torch reports that the host has too little memory."""
LEAST_CPU_SHARE = 0.7
"""If a process gets less than this share of the CPU time that its threads could use, other processes slowed it down."""


@dataclass(frozen=True)
class Measurement:
    """The times of all contestants, and the state of the machine.

    Attributes:
        backbone: the backbone with no method attached.
        contestants: the contestants in the order in which they ran.
        timings: timings by contestant, then by phase.
        load_average: load average of the machine before the backbone was loaded; None where it is not reported.
        cpu_s_per_s: CPU seconds that the process got per second of the timed steps.
        loaded: whether the machine was busy with other work.
        gpu_mhz: clock of the GPU after the timed steps; None where it is not reported.
        matmul_flops_per_s: measured peak rate of matrix products; None without a GPU.
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
    """Load the backbone once, attach all methods to it, and time them.

    Args:
        plan: what to time.
        on_round: called after every round with the phase and the number of rounds done so far, warm-up included.

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
    """Raise torch's limit of compiled graphs, so that every contestant can be compiled.

    torch limits the number of graphs per piece of code, and all contestants run the same code. Beyond the limit torch
    would only warn and run uncompiled. In this context the limit is high enough, and exceeding it is an error.
    """
    limit = GRAPHS_PER_CONTESTANT * contestants
    with torch._dynamo.config.patch(
        recompile_limit=limit, accumulated_recompile_limit=2 * limit, fail_on_recompile_limit_hit=True
    ):
        yield


@contextmanager
def _too_little_memory() -> Iterator[None]:
    """Turn an allocation failure of the GPU or of the host into a UserError."""
    try:
        yield
    except RuntimeError as error:
        on_gpu = isinstance(error, torch.cuda.OutOfMemoryError)
        # For the host, torch raises a plain RuntimeError. Only its message says that memory is the reason.
        if not on_gpu and not any(text in str(error) for text in _HOST_ALLOCATION_FAILURES):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"out of memory: {reason}; give a smaller --train-batch, --eval-batch or --layers") from error


def is_loaded(load_average: float | None, cpu_share: float, threads: int, cores: int, *, on_gpu: bool) -> bool:
    """Return whether the machine was busy with other work.

    Args:
        load_average: load average before the measurement; None where it is not reported.
        cpu_share: CPU seconds that the process got per second of the timed steps.
        threads: number of compute threads.
        cores: number of cores that the process may use.
        on_gpu: whether a GPU did the work. The CPU time of the process then says nothing.
    """
    busy_before = load_average is not None and load_average > cores / 2
    kept_waiting = not on_gpu and cpu_share < LEAST_CPU_SHARE * threads
    return busy_before or kept_waiting


def _cores() -> int:
    """Return the number of cores that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _captured(contestant: Contestant, step: Callable[[], None], pool: Any) -> Callable[[], None]:
    """Capture a contestant's step as a CUDA graph; a step that cannot be captured is a UserError."""
    try:
        return capture(step, pool)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserError(
            f"--compile: the training step of {contestant.method} cannot be captured as a CUDA graph "
            f"({str(error).splitlines()[0]}); remove --compile, or remove {contestant.method} from --methods"
        ) from error


def _is_captured(plan: SpeedPlan, phase: Phase) -> bool:
    """Return whether the steps of a phase are captured as CUDA graphs."""
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
        contestants: all contestants.
        doubled: the same contestants with every decoder layer running twice; None where the backbone is whole.
        meter: reads the GPU's energy.
        on_round: called after every round with the phase and the number of rounds done so far, warm-up included.
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
    """Run the steps of a measurement once more, under torch's profiler.

    Args:
        plan: the options of the measurement.
        found: the result of `measure(plan)`.
        on_round: called after every round with the phase and the number of rounds done so far.

    Returns:
        The operators of each step by phase, then by method and implementation (`memvp shipped`).
    """
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
    """Return the FLOPs per batch of each method that counts them; the methods are built on the meta device."""
    pristine = meta_backbone(plan.spec)
    found: dict[tuple[Key, Phase], int] = {}
    for method_plan in plan.plans:
        backbone, method = attach_on_meta(method_plan, plan.spec, pristine=pristine)
        if isinstance(method, Costed):
            for phase in PHASES:
                counted = count_flops(backbone, method, phase, plan.work)
                found[Key(method_plan.method, "shipped"), phase] = total_flops(counted)
    return found
