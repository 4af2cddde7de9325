"""The timings of one measurement: what each contestant's `Timing` contains."""

import pytest

from harness.cost.timing import Key
from tests.harness.cost.small_speed import METHODS


@pytest.fixture(scope="module")
def timings(measured):
    return measured[1].timings


def test_every_contestant_has_two_phases(timings):
    assert len(timings) == len(METHODS) + 3
    assert all(set(phases) == {"train", "inference"} for phases in timings.values())


def test_times_are_percentiles_over_the_timed_rounds(timings):
    for phases in timings.values():
        for timing in phases.values():
            assert timing.n == 2 and 0 < timing.p10_s <= timing.median_s <= timing.p90_s


def test_a_ratio_and_the_peak_memory_are_measured(timings):
    for phases in timings.values():
        for timing in phases.values():
            assert timing.ratio.median > 0 and timing.peak_memory_bytes > 0


def test_nothing_is_estimated_for_a_whole_backbone(timings):
    for phases in timings.values():
        for timing in phases.values():
            assert timing.layer_s is timing.whole_s is None


def test_the_baseline_has_the_ratio_one(timings):
    assert {timing.ratio.median for timing in timings[Key("memvp", "shipped")].values()} == {1.0}


def test_throughput_is_the_tokens_of_a_batch_per_median_time(timings):
    for phases in timings.values():
        train = phases["train"]
        assert train.tokens_per_s == pytest.approx(2 * 16 / train.median_s)
