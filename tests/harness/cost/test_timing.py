"""The timings of one measurement: what each contestant's `Timing` contains."""

import pytest
import torch

from harness.backbone.machine import Machine
from harness.cost.timing import BASELINE, YARDSTICK, Key, PhaseResult, PhaseResults, pool
from harness.records import PeakMemory
from tests.harness.cost.small_speed import METHODS, plan, sample


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


def test_the_cpu_time_of_every_step_is_measured(timings):
    for phases in timings.values():
        assert all(timing.cpu_s > 0 for timing in phases.values())


def results(seconds, cpu_s, rss):
    """The results of a process in which a method took these times in each round and the yardstick took one second."""
    of_method = [sample(wall, cpu) for wall, cpu in zip(seconds, cpu_s, strict=True)]
    of_yardstick = [sample(1.0, 1.0) for _ in seconds]
    found = {BASELINE: of_method, YARDSTICK: of_yardstick}
    return PhaseResults("train", {key: PhaseResult(one, None, PeakMemory(rss=rss)) for key, one in found.items()})


def test_the_rounds_of_all_processes_are_pooled_before_the_median():
    # The median of the medians, 2 and 8, would be 5.
    pooled = pool([results([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], 10), results([8.0], [5.0], 20)])
    timing = pooled.timing(BASELINE, plan(), "wall")
    assert (timing.n, timing.median_s, timing.ratio_to_yardstick.median, timing.peak_memory_bytes) == (4, 2.5, 2.5, 20)


def test_ratios_divide_the_times_of_the_given_clock():
    timing = results([9.0], [3.0], 1).timing(BASELINE, plan(), "cpu")
    assert (timing.median_s, timing.cpu_s, timing.ratio_to_yardstick.median) == (9.0, 3.0, 3.0)


def test_on_a_gpu_there_is_no_cpu_time():
    gpu = Machine(torch.device("cuda"), torch.bfloat16, "random")
    assert results([9.0], [3.0], 1).timing(BASELINE, plan(machine=gpu), "wall").cpu_s is None


def test_the_label_of_a_contestant_says_which_implementation_it_is():
    keys = [Key("name", "shipped"), Key("name", "plain"), YARDSTICK]
    assert [key.label for key in keys] == ["name", "name-plain", "frozen"]
