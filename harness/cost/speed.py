"""Time all methods: seconds per batch in training and in inference, from the rounds of one process or of several.

Where memory is placed differs from process to process, and with it the time of a step. Pooling the rounds of several
processes averages over that.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context

import torch

from harness.backbone.loader import Backbone
from harness.cost.contestants import Contestant
from harness.cost.flops import Phase, count_flops, total_flops
from harness.cost.goals import Verdict
from harness.cost.plan import SpeedPlan
from harness.cost.session import PHASES, OnRound, run_session
from harness.cost.stopwatch import Sample, matmul_peak
from harness.cost.timing import Key, PhaseResults, pool
from harness.errors import UserError
from harness.records import Clock, Timing
from harness.run.attach import attach_on_meta, meta_backbone
from harness.run.energy import EnergyMeter
from harness.stopping import end_with_parent
from methods.cost import Costed

LEAST_CPU_SHARE = 0.7
"""If a process gets less than this share of the CPU time that its threads could use, other processes slowed it down."""
OWN_LOAD = 0.2
"""The load average goes above the number of busy threads by this much without any other work."""


@dataclass(frozen=True)
class Measurement:
    """The times of all contestants, and the state of the machine.

    Attributes:
        backbone: the backbone with no method attached.
        contestants: the contestants in the order of the first round.
        timings: timings by contestant, then by phase.
        verdicts: the goals of the plan, and whether they are met.
        clock: which times the ratios divide.
        load_average: load average of the machine before the measurement; None where it is not reported.
        cpu_s_per_s: CPU seconds that the process got per second of the timed steps.
        loaded: whether the machine was busy with other work.
        gpu_mhz: clock of the GPU after the timed steps; None where it is not reported.
        matmul_flops_per_s: measured peak rate of matrix products; None without a GPU, or where a signal stopped the
            measurement.
        stop: what stopped the measurement after training was timed; None where it was not stopped.
    """

    backbone: Backbone
    contestants: Sequence[Contestant]
    timings: Mapping[Key, Mapping[Phase, Timing]]
    verdicts: Sequence[Verdict]
    clock: Clock
    load_average: float | None
    cpu_s_per_s: float
    loaded: bool
    gpu_mhz: float | None
    matmul_flops_per_s: float | None
    stop: KeyboardInterrupt | None = None


def _say_nothing(what: str, done: int, rounds: int) -> None:
    """Ignore a round."""


def measure(plan: SpeedPlan, on_round: OnRound = _say_nothing) -> Measurement:
    """Time all methods and pool the rounds of all processes. The last process is this one.

    Where a signal stops the only process in the inference, the times of training are returned.

    Args:
        plan: what to time.
        on_round: called after every round, warm-up included; in the process that timed it, so it must be a function
            that can be pickled if there are several.

    Raises:
        UserError: a method cannot be built at this size, a goal names none, a text is too short or too long, memory
            runs out, or a process is killed.
        KeyboardInterrupt: a signal stopped the measurement earlier, or one of several processes.
    """
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    last = plan.processes - 1
    earlier = [_in_a_process(plan, part, on_round) for part in range(last)]
    session = run_session(plan, last, on_round)
    phases = [pool(parts) for parts in zip(*earlier, session.phases, strict=True)]
    on_gpu = plan.machine.device.type == "cuda"
    gpu_mhz = EnergyMeter(plan.machine.device).clock_mhz()
    # A process that is stopped is soon killed, so it writes what it has.
    peak = matmul_peak(plan.machine.device) if on_gpu and session.stop is None else None
    seconds_at_peak = {key: flops / peak for key, flops in _flops(plan).items()} if peak else {}
    timed = [sample for results in phases for sample in results.samples]
    share = sum(sample.cpu_s for sample in timed) / sum(sample.seconds for sample in timed)
    threads = torch.get_num_threads()
    clock = clock_of(timed, threads, on_gpu=on_gpu)
    keys = {contestant.key.label: contestant.key for contestant in session.contestants}
    return Measurement(
        backbone=session.backbone,
        contestants=session.contestants,
        timings={
            key: {
                results.phase: results.timing(key, plan, clock, seconds_at_peak.get((key, results.phase)))
                for results in phases
            }
            for key in keys.values()
        },
        verdicts=[
            Verdict(goal, results.ratio(keys[goal.over], keys[goal.under], clock))
            for goal in plan.goals
            for results in phases
            if results.phase == goal.phase
        ],
        clock=clock,
        load_average=load_average,
        cpu_s_per_s=share,
        loaded=is_loaded(load_average, share, threads, _cores(), on_gpu=on_gpu),
        gpu_mhz=gpu_mhz,
        matmul_flops_per_s=peak,
        stop=session.stop,
    )


def _in_a_process(plan: SpeedPlan, part: int, on_round: OnRound) -> Sequence[PhaseResults]:
    """Run a session in a new process and return its results."""
    # A forked process would have the memory of this one. A spawned process arranges its own.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as executor:
        try:
            return executor.submit(_phases, plan, part, on_round).result()
        except BrokenProcessPool as error:
            message = f"--processes {plan.processes}: process {part + 1} was killed, probably for its use of memory"
            raise UserError(f"{message}; give a smaller --train-batch, --eval-batch or --layers") from error
        except KeyboardInterrupt:
            for process in active_children():  # otherwise the executor waits until it has timed its part
                process.terminate()
            raise


def _phases(plan: SpeedPlan, part: int, on_round: OnRound) -> Sequence[PhaseResults]:
    return run_session(plan, part, on_round).phases


def clock_of(samples: Sequence[Sample], threads: int, *, on_gpu: bool) -> Clock:
    """Return which times the ratios divide.

    Other processes do not add to the CPU time of this one, so it is the better measure where it counts work alone. With
    several threads it includes their waiting for each other, on a GPU it leaves out the work, and a coarse CPU clock
    does not see a short step at all.

    Args:
        samples: all timed steps.
        threads: number of compute threads.
        on_gpu: whether a GPU did the work.
    """
    return "cpu" if not on_gpu and threads == 1 and all(sample.cpu_s > 0 for sample in samples) else "wall"


def is_loaded(load_average: float | None, cpu_share: float, threads: int, cores: int, *, on_gpu: bool) -> bool:
    """Return whether the machine was busy with other work.

    It was where more than half of its cores had work before the measurement, or where the process did not get the CPU
    time that its threads could use. A measurement just before counts as such work, too.

    Args:
        load_average: load average before the measurement; None where it is not reported.
        cpu_share: CPU seconds that the process got per second of the timed steps.
        threads: number of compute threads.
        cores: number of cores that the process may use.
        on_gpu: whether a GPU did the work. The CPU time of the process then says nothing.
    """
    busy_before = load_average is not None and load_average > cores / 2 + OWN_LOAD
    kept_waiting = not on_gpu and cpu_share < LEAST_CPU_SHARE * threads
    return busy_before or kept_waiting


def _cores() -> int:
    """Return the number of cores that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
