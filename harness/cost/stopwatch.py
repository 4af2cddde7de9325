"""Interleaved timing, so that a slow moment of the machine affects all contestants alike.

The order rotates from round to round: A B C, then B C A, then C A B. So each contestant comes first equally often, and
none gains from a fixed place in the round.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from harness.records import Clock, Spread
from harness.run.energy import EnergyMeter
from harness.stats import median_interval

K = TypeVar("K")


@dataclass(frozen=True)
class Sample:
    """One timed step.

    Attributes:
        seconds: wall-clock time, measured with the device synchronised before and after the step.
        cpu_s: CPU time of the process during the step, summed over its threads.
        joules: energy of the GPU; None where it is not reported.
    """

    seconds: float
    cpu_s: float
    joules: float | None

    def time(self, clock: Clock) -> float:
        """Return the seconds that a clock measured."""
        return self.cpu_s if clock == "cpu" else self.seconds


def interleave(
    steps: Mapping[K, Callable[[], None]],
    rounds: range,
    warmup: int,
    device: torch.device,
    meter: EnergyMeter,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[K, list[Sample]]:
    """Run and time every step once per round, each time beginning with another step.

    Args:
        steps: the steps to time, by key.
        rounds: numbers of the rounds whose times are kept. Round n begins with step n modulo the number of steps.
        warmup: number of rounds before them whose times are dropped.
        device: where the steps compute.
        meter: reads the GPU's energy.
        on_round: called after every round with the number of rounds done so far, warm-up included.

    Returns:
        One sample per step and round. The n-th samples of all steps come from the same round.
    """
    samples: dict[K, list[Sample]] = {key: [] for key in steps}
    keys = list(steps)
    for done, number in enumerate(range(rounds.start - warmup, rounds.stop), start=1):
        first = number % len(keys)
        for key in keys[first:] + keys[:first]:
            sample = time_step(steps[key], device, meter)
            if number >= rounds.start:
                samples[key].append(sample)
        on_round(done)
    return samples


def time_step(step: Callable[[], None], device: torch.device, meter: EnergyMeter) -> Sample:
    """Run one step and return its times and energy."""
    synchronize(device)
    joules, cpu, begun = meter.joules(), time.process_time(), time.perf_counter()
    step()
    synchronize(device)
    seconds, cpu_s, after = time.perf_counter() - begun, time.process_time() - cpu, meter.joules()
    used = None if joules is None or after is None else after - joules
    return Sample(seconds, cpu_s, used)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spread(values: Sequence[float]) -> Spread:
    """Return the median with its confidence interval, and the 10th and 90th percentiles by linear interpolation."""
    p10, median, p90 = np.quantile(np.asarray(values, dtype=np.float64), (0.1, 0.5, 0.9))
    low, high = median_interval(values) or (None, None)
    return Spread(median=float(median), p10=float(p10), p90=float(p90), ci_low=low, ci_high=high)


def paired_ratio(samples: Sequence[Sample], baseline: Sequence[Sample], clock: Clock) -> Spread:
    """Return the spread of `samples / baseline`, where each quotient divides two times of the same round."""
    return spread([ours.time(clock) / base.time(clock) for ours, base in zip(samples, baseline, strict=True)])


def matmul_peak(device: torch.device, size: int = 8192, products: int = 20, rounds: int = 5) -> float:
    """Measure how many FLOPs per second the device reaches in large matrix products.

    Several products run before the device is synchronised. Synchronising after each one would add the host's time,
    which does not slow down a step that keeps the device busy.

    Args:
        device: where the products run.
        size: rows and columns of the square matrices of random bfloat16 values.
        products: products per round.
        rounds: timed rounds; their median counts. One more round before them warms up.
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
