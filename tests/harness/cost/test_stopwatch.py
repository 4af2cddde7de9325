"""The stopwatch: the order of the steps, ratios within a round, medians and their intervals, the peak of the device."""

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cost.stopwatch import interleave, matmul_peak, paired_ratio, spread, time_step
from harness.run.energy import EnergyMeter
from tests.harness.cost.small_speed import CPU, sample


def run_rounds(rounds, warmup):
    """Return the order in which three steps run, their samples, and the reported rounds."""
    order, reported = [], []
    steps = {name: lambda name=name: order.append(name) for name in "abc"}
    samples = interleave(steps, rounds, warmup, CPU, EnergyMeter(CPU), reported.append)
    order = "".join(order)
    return [order[i : i + 3] for i in range(0, len(order), 3)], samples, reported


def test_steps_take_turns_and_warm_up_is_left_out():
    order, samples, reported = run_rounds(range(3), 2)
    assert all(sorted(one) == ["a", "b", "c"] for one in order)
    assert {name: len(found) for name, found in samples.items()} == {"a": 3, "b": 3, "c": 3}
    assert reported == [1, 2, 3, 4, 5]
    assert all(one.seconds >= 0 and one.joules is None for found in samples.values() for one in found)


@given(first=st.integers(0, 20), rounds=st.integers(1, 7), warmup=st.integers(0, 4))
def test_every_step_has_every_place_of_a_round_equally_often(first, rounds, warmup):
    order, _, _ = run_rounds(range(first, first + 3 * rounds), warmup)
    for place in range(3):
        assert Counter(one[place] for one in order[warmup:]) == dict.fromkeys("abc", rounds)


def test_another_process_goes_on_with_the_rotation():
    whole, _, _ = run_rounds(range(5), 0)
    assert whole == run_rounds(range(2), 0)[0] + run_rounds(range(2, 5), 0)[0]


def test_a_step_that_sleeps_takes_wall_clock_time_alone():
    found = time_step(lambda: time.sleep(0.05), CPU, EnergyMeter(CPU))
    assert found.time("wall") >= 0.05 > found.time("cpu")


def test_a_drifting_machine_does_not_change_ratios():
    # Every step takes twice as long as its partner while the machine becomes ten times slower. Dividing the medians
    # would also give 2, but dividing the percentiles would not.
    base = [sample(seconds) for seconds in (1.0, 3.0, 10.0)]
    ratio = paired_ratio([sample(2 * one.seconds) for one in base], base, "wall")
    assert (ratio.p10, ratio.median, ratio.p90) == (2, 2, 2)


def test_ratios_are_taken_pair_by_pair():
    uneven = paired_ratio([sample(3.0), sample(3.0)], [sample(1.0), sample(3.0)], "wall")
    assert uneven.median == pytest.approx(2) and uneven.p10 == pytest.approx(1.2) and uneven.p90 == pytest.approx(2.8)


def test_a_ratio_of_cpu_times_ignores_the_wall_clock():
    ratio = paired_ratio([sample(100.0, cpu_s=3.0)], [sample(1.0, cpu_s=2.0)], "cpu")
    assert ratio.median == 1.5


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
