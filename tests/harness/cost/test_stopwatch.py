"""The stopwatch: the order of the steps, ratios within a round, medians and their intervals, the peak of the device."""

import pytest

from harness.cost.energy import EnergyMeter
from harness.cost.stopwatch import interleave, matmul_peak, paired_ratio, spread
from tests.harness.cost.small_speed import CPU, sample


def test_steps_take_turns_and_warm_up_is_left_out():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in "abc"}
    rounds = []
    found = interleave(steps, 3, 2, CPU, EnergyMeter(CPU), rounds.append)
    assert "".join(order) == "abc" * 5
    assert {name: len(samples) for name, samples in found.items()} == {"a": 3, "b": 3, "c": 3}
    assert rounds == [1, 2, 3, 4, 5]
    assert all(one.seconds >= 0 and one.joules is None for samples in found.values() for one in samples)


def test_a_drifting_machine_does_not_change_ratios():
    # Every step takes twice as long as its partner while the machine becomes ten times slower. Dividing the medians
    # would also give 2, but dividing the percentiles would not.
    base = [sample(seconds) for seconds in (1.0, 3.0, 10.0)]
    ratio = paired_ratio([sample(2 * one.seconds) for one in base], base)
    assert (ratio.p10, ratio.median, ratio.p90) == (2, 2, 2)


def test_ratios_are_taken_pair_by_pair():
    uneven = paired_ratio([sample(3.0), sample(3.0)], [sample(1.0), sample(3.0)])
    assert uneven.median == pytest.approx(2) and uneven.p10 == pytest.approx(1.2) and uneven.p90 == pytest.approx(2.8)


def test_the_peak_counts_every_product(monkeypatch):
    times = iter([0.0, 9.0, *(value for start in (10.0, 20.0, 30.0) for value in (start, start + 4.0))])
    monkeypatch.setattr("harness.cost.stopwatch.time.perf_counter", lambda: next(times))
    assert matmul_peak(CPU, size=8, products=2, rounds=3) == 2 * 8**3 * 2 / 4.0


def test_spread_is_median_and_deciles():
    found = spread([float(x) for x in range(11)])
    assert (found.p10, found.median, found.p90) == (1, 5, 9)


def test_the_interval_of_a_median_follows_the_sign_test():
    # Of 20 values, the 6th and the 15th: 15 or more on one side of the median have probability 0.0207 (Conover, ch. 3).
    found = spread([float(x) for x in range(1, 21)])
    assert (found.ci_low, found.ci_high) == (6, 15)


def test_five_values_give_no_interval():
    few = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert few.ci_low is few.ci_high is None


def test_six_values_give_the_whole_range():
    six = spread([6.0, 1.0, 5.0, 2.0, 4.0, 3.0])
    assert (six.ci_low, six.ci_high) == (1, 6)
