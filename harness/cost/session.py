"""One process's part of a speed measurement: load the backbone once, attach all methods to it, and time them.

Training is timed first, then inference. Within a phase the contestants take turns (`harness.cost.stopwatch`).
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from harness.backbone.loader import Backbone, load_backbone
from harness.cost.contestants import Contestant, build_contestants
from harness.cost.depth import whole_layers
from harness.cost.flops import Phase
from harness.cost.plan import SpeedPlan
from harness.cost.profile import ROUNDS, OperatorTime, profile_steps
from harness.cost.share import share_backbone
from harness.cost.stopwatch import interleave
from harness.cost.timing import Key, PhaseResult, PhaseResults
from harness.errors import UserError, first_line, is_out_of_memory
from harness.records import PeakMemory
from harness.run.captured import Captured, Replay, capture_graph
from harness.run.compiled import compile_limits, compile_regions
from harness.run.energy import EnergyMeter
from harness.run.execution import Eager, Execution, MicroBatch
from harness.run.memory import peak_of

WARMUP_ROUNDS = 3
"""Rounds of every process that run before the timed ones."""
PHASES: tuple[Phase, ...] = ("train", "inference")
_HOST_ALLOCATION_FAILURES = ("DefaultCPUAllocator", "Storage size calculation overflowed")
"""Parts of the messages with which torch reports that the host has too little memory."""

OnRound = Callable[[str, int, int], None]
"""Called after every round with what is timed, the number of rounds done so far, and how many there will be."""


@dataclass(frozen=True)
class Session:
    """The contestants of one process and their times.

    Attributes:
        backbone: the backbone with no method attached.
        contestants: the contestants in the order of the first round.
        phases: the results of each phase that was timed as a whole.
        stop: what stopped the session after the first phase; None where it was not stopped.
    """

    backbone: Backbone
    contestants: Sequence[Contestant]
    phases: Sequence[PhaseResults]
    stop: KeyboardInterrupt | None = None


def run_session(plan: SpeedPlan, part: int, on_round: OnRound) -> Session:
    """Time all contestants in this process.

    Args:
        plan: what to time.
        part: which of `plan.parts` to time.
        on_round: called after every round, warm-up included.

    Raises:
        UserError: a method cannot be built at this size, a goal names none, a text is too short or too long, or memory
            runs out.
        KeyboardInterrupt: a signal stopped the session, and no phase was timed as a whole, or the other processes have
            phases that this one lacks.
    """
    torch.manual_seed(0)
    machine = plan.machine
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    if machine.device.type == "cuda":
        torch.cuda.set_device(machine.device)
    with _too_little_memory():
        backbone = load_backbone(plan.spec, weights=machine.weights, device=machine.device, dtype=machine.dtype)
        contestants = build_contestants(backbone, plan.plans)
        doubled = None
        if whole_layers(plan.spec) is not None:
            doubled = build_contestants(share_backbone(backbone, repeat=2), plan.plans)
    _require_contestants(plan, contestants)
    models = [contestant.model for contestant in (*contestants, *(doubled or ()))]
    if plan.compiled:
        for model in models:
            compile_regions(model)
    meter = EnergyMeter(machine.device)
    phases: list[PhaseResults] = []
    try:
        with _too_little_memory(), compile_limits(len(models)):
            for phase in PHASES:
                phases.append(_time_phase(phase, plan, part, contestants, doubled, meter, on_round))
    except ValueError as error:
        raise UserError(f"{plan.spec.display}, text of {plan.work.text_length} tokens: {error}") from error
    except KeyboardInterrupt as stop:
        if not phases or plan.processes > 1:
            raise
        return Session(backbone, contestants, phases, stop)
    return Session(backbone, contestants, phases)


def _require_contestants(plan: SpeedPlan, contestants: Sequence[Contestant]) -> None:
    """Check that every goal names contestants that are timed."""
    labels = [contestant.key.label for contestant in contestants]
    for goal in plan.goals:
        for label in (goal.over, goal.under):
            if label not in labels:
                raise UserError(f"--goal {goal}: {label} is not timed; give names among {', '.join(labels)}")


@contextmanager
def _too_little_memory() -> Iterator[None]:
    """Turn an allocation failure of the GPU or of the host into a UserError."""
    try:
        yield
    except RuntimeError as error:
        # For the host, torch raises a plain RuntimeError. Only its message says that memory is the reason.
        if not is_out_of_memory(error) and not any(text in str(error) for text in _HOST_ALLOCATION_FAILURES):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"out of memory: {reason}; give a smaller --train-batch, --eval-batch or --layers") from error


def _execution(contestant: Contestant, plan: SpeedPlan, pool: Any) -> Execution:
    """Return what runs the passes of a contestant's training step: the same as in `run`.

    Args:
        contestant: one of the models.
        plan: what to time.
        pool: the memory that all captured graphs share; None where they are not captured.
    """
    model, device = contestant.model, plan.machine.device
    if pool is None:
        return Eager(model, device)
    micro_batch = MicroBatch(plan.work.train_batch, automatic=False)
    return Captured(model, device, micro_batch, partial(_capture, contestant.method), pool)


def _capture(method: str, run: Replay, pool: Any) -> Replay:
    """Capture a method's passes as a CUDA graph; passes that cannot be captured are a UserError."""
    try:
        return capture_graph(run, pool)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"--compile: the training step of {method} cannot be captured as a CUDA graph ({first_line(error)}); "
            f"remove --compile, or remove {method} from --methods"
        ) from error


def _is_captured(plan: SpeedPlan, phase: Phase) -> bool:
    """Return whether the forward and backward passes of a phase are captured as CUDA graphs."""
    return plan.compiled and phase == "train" and plan.machine.device.type == "cuda"


def _time_phase(
    phase: Phase,
    plan: SpeedPlan,
    part: int,
    contestants: Sequence[Contestant],
    doubled: Sequence[Contestant] | None,
    meter: EnergyMeter,
    on_round: OnRound,
) -> PhaseResults:
    """Time one phase of all contestants in turns, then measure the peak memory of each.

    Args:
        phase: training or inference.
        plan: what to time.
        part: which of `plan.parts` to time.
        contestants: all contestants.
        doubled: the same contestants with every decoder layer running twice; None where the backbone is whole.
        meter: reads the GPU's energy.
        on_round: called after every round, warm-up included.
    """
    device = plan.machine.device
    pool = torch.cuda.graph_pool_handle() if _is_captured(plan, phase) else None
    executions: dict[tuple[Key, bool], Execution] = {}
    timed: dict[tuple[Key, bool], Callable[[], None]] = {}
    for is_doubled, group in ((False, contestants), (True, doubled or ())):
        for contestant in group:
            model = (contestant.key, is_doubled)
            executions[model] = _execution(contestant, plan, pool)
            timed[model] = _step(contestant, phase, plan, executions[model])
    gc.collect()
    rounds = plan.parts[part]
    what = phase if plan.processes == 1 else f"process {part + 1} of {plan.processes}, {phase}"

    def report(done: int) -> None:
        on_round(what, done, WARMUP_ROUNDS + len(rounds))

    samples = interleave(timed, rounds, WARMUP_ROUNDS, device, meter, report)
    for execution in executions.values():
        execution.release()
    results = {}
    for contestant in contestants:
        key = contestant.key
        peak = _peak(timed[key, False], executions[key, False], device)
        results[key] = PhaseResult(samples[key, False], samples.get((key, True)), peak)
    return PhaseResults(phase, results)


def _step(contestant: Contestant, phase: Phase, plan: SpeedPlan, execution: Execution) -> Callable[[], None]:
    """Put a contestant's model into the mode of a phase, and return its step."""
    contestant.model.train(phase == "train")
    if phase == "inference":
        return contestant.inference_step(plan.work)
    return contestant.training_step(plan.work, execution)


def _peak(step: Callable[[], None], execution: Execution, device: torch.device) -> PeakMemory:
    """Return the peaks of a step. A step without a graph captures one first, which takes all the memory it needs."""
    peak = peak_of(step, device)
    execution.release()
    return peak


def profile_session(
    plan: SpeedPlan, contestants: Sequence[Contestant], on_round: OnRound
) -> dict[Phase, Mapping[str, Sequence[OperatorTime]]]:
    """Run the steps of a measurement once more, under torch's profiler.

    Args:
        plan: the options of the measurement.
        contestants: the contestants of a session with this plan, in this process.
        on_round: called after every round.

    Returns:
        The operators of each step by phase, then by method and implementation (`memvp shipped`).
    """
    profiles: dict[Phase, Mapping[str, Sequence[OperatorTime]]] = {}
    with compile_limits(len(contestants)):
        for phase in PHASES:
            steps = {}
            for contestant in contestants:
                # The profiler does not see the operators inside a graph.
                step = _step(contestant, phase, plan, Eager(contestant.model, plan.machine.device))
                steps[" ".join(contestant.key)] = step
                step()
            report = partial(_report_profile, on_round, phase)
            profiles[phase] = profile_steps(steps, plan.machine.device, report)
    return profiles


def _report_profile(on_round: OnRound, phase: Phase, done: int) -> None:
    on_round(f"profile, {phase}", done, ROUNDS)
