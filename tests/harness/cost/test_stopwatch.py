"""The stopwatch: who is timed when, ratios pair by pair, two depths, what a loaded machine is, peak memory."""

import pytest
import torch

from harness.cost.depth import estimate
from harness.cost.energy import EnergyMeter
from harness.cost.speed import is_loaded
from harness.cost.stopwatch import Sample, interleave, matmul_peak, paired_ratio, spread
from harness.run.memory import peak_of

CPU = torch.device("cpu")


def sample(seconds):
    return Sample(seconds, 0.0, None)


def test_steps_take_turns_and_warm_up_is_left_out():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in "abc"}
    rounds = []
    found = interleave(steps, 3, 2, CPU, EnergyMeter(CPU), rounds.append)
    assert "".join(order) == "abc" * 5
    assert {name: len(samples) for name, samples in found.items()} == {"a": 3, "b": 3, "c": 3}
    assert rounds == [1, 2, 3, 4, 5]
    assert all(one.seconds >= 0 and one.joules is None for samples in found.values() for one in samples)


def test_ratios_are_taken_pair_by_pair():
    # Each twice its partner while the machine drifts tenfold: medians of the two alone would do, deciles would not.
    base = [sample(seconds) for seconds in (1.0, 3.0, 10.0)]
    ratio = paired_ratio([sample(2 * one.seconds) for one in base], base)
    assert (ratio.p10, ratio.median, ratio.p90) == (2, 2, 2)
    uneven = paired_ratio([sample(3.0), sample(3.0)], [sample(1.0), sample(3.0)])
    assert uneven.median == pytest.approx(2) and uneven.p10 == pytest.approx(1.2) and uneven.p90 == pytest.approx(2.8)


def test_the_peak_counts_every_product(monkeypatch):
    times = iter([0.0, 9.0, *(value for start in (10.0, 20.0, 30.0) for value in (start, start + 4.0))])
    monkeypatch.setattr("harness.cost.stopwatch.time.perf_counter", lambda: next(times))
    assert matmul_peak(CPU, size=8, products=2, rounds=3) == 2 * 8**3 * 2 / 4.0


def test_the_whole_is_estimated_from_two_depths():
    # 0.5 s beside the layers, 0.25 s a layer, on a machine that is slower in the second round.
    once = [sample(slow * (0.5 + 4 * 0.25)) for slow in (1, 1, 3)]
    twice = [sample(slow * (0.5 + 8 * 0.25)) for slow in (1, 1, 3)]
    found = estimate(once, twice, layers=4, whole=32)
    assert (found.layer_s, found.whole_s) == (0.25, 0.5 + 32 * 0.25)


def test_spread_is_median_and_deciles():
    found = spread([float(x) for x in range(11)])
    assert (found.p10, found.median, found.p90) == (1, 5, 9)


def test_how_well_a_median_is_known():
    # Of 20 values, the 6th and the 15th: 15 or more on one side of the median have probability 0.0207 (Conover, ch. 3).
    found = spread([float(x) for x in range(1, 21)])
    assert (found.ci_low, found.ci_high) == (6, 15)
    few = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert few.ci_low is few.ci_high is None
    six = spread([6.0, 1.0, 5.0, 2.0, 4.0, 3.0])
    assert (six.ci_low, six.ci_high) == (1, 6)


@pytest.mark.parametrize(
    ("load", "share", "on_gpu", "expected"),
    [
        (0.1, 1.9, False, False),
        (0.1, 1.0, False, True),
        (1.5, 1.9, False, True),
        (None, 1.9, False, False),
        (0.1, 0.9, True, False),
        (1.5, 0.9, True, True),
    ],
)
def test_a_loaded_machine_is_noticed(load, share, on_gpu, expected):
    assert is_loaded(load, share, threads=2, cores=2, on_gpu=on_gpu) is expected


def test_the_peak_of_a_step_is_its_own():
    def hold(megabytes):
        torch.ones(megabytes * 2**18).sum()

    small, large, again = (peak_of(lambda size=size: hold(size), CPU).rss for size in (8, 256, 8))
    if small is not None:
        assert large - small > 200 * 2**20
        assert abs(again - small) < 100 * 2**20
