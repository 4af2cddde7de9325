"""Interleaved timing: A B C A B C …, so that whatever drifts on the machine hits all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from harness.cost.energy import EnergyMeter
from harness.records import Spread
from harness.stats import median_interval

K = TypeVar("K")


@dataclass(frozen=True)
class Sample:
    """One timed step.

    Attributes:
        seconds: wall-clock time, the device synchronised before and after.
        cpu_s: CPU time that the process spent in it, over all its threads.
        joules: energy the GPU took; None where it does not tell.
    """

    seconds: float
    cpu_s: float
    joules: float | None


def interleave(
    steps: Mapping[K, Callable[[], None]],
    rounds: int,
    warmup: int,
    device: torch.device,
    meter: EnergyMeter,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[K, list[Sample]]:
    """Run every step once a round, in the same order, and time it.

    Args:
        steps: what to time; the n-th samples of two of them are a pair, taken within one round.
        rounds: rounds that count.
        warmup: rounds before them that do not.
        device: where the steps compute.
        meter: of the GPU's energy.
        on_round: called after every round, warm-up included, with how many are over.

    Returns:
        `rounds` samples for each step.
    """
    samples: dict[K, list[Sample]] = {key: [] for key in steps}
    for done in range(1, warmup + rounds + 1):
        for key, step in steps.items():
            sample = time_step(step, device, meter)
            if done > warmup:
                samples[key].append(sample)
        on_round(done)
    return samples


def time_step(step: Callable[[], None], device: torch.device, meter: EnergyMeter) -> Sample:
    """Run and time one step."""
    synchronize(device)
    joules, cpu, begun = meter.joules(), time.process_time(), time.perf_counter()
    step()
    synchronize(device)
    seconds, cpu_s, after = time.perf_counter() - begun, time.process_time() - cpu, meter.joules()
    taken = None if joules is None or after is None else after - joules
    return Sample(seconds, cpu_s, taken)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spread(values: Sequence[float]) -> Spread:
    """Median with its confidence interval, first and ninth decile (linear interpolation)."""
    p10, median, p90 = np.quantile(np.asarray(values, dtype=np.float64), (0.1, 0.5, 0.9))
    low, high = median_interval(values) or (None, None)
    return Spread(median=float(median), p10=float(p10), p90=float(p90), ci_low=low, ci_high=high)


def paired_ratio(samples: Sequence[Sample], baseline: Sequence[Sample]) -> Spread:
    """`samples / baseline`, pair by pair: each quotient is of two steps of one round."""
    return spread([ours.seconds / base.seconds for ours, base in zip(samples, baseline, strict=True)])


def matmul_peak(device: torch.device, size: int = 8192, products: int = 20, rounds: int = 5) -> float:
    """FLOP/s of a `size³` matrix product of random bfloat16 data.

    The median of `rounds`, after one to warm up, of `products` in a row: waited for one by one, they would be charged
    for the host's part as well, which a step that keeps the device busy does not wait for.
    """
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(1 + rounds):
        synchronize(device)
        begun = time.perf_counter()
        for _ in range(products):
            a @ b
        synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 * products / spread(seconds[1:]).median
