"""Peak memory of one step."""

import torch

from harness.records import PeakMemory
from harness.run.memory import largest_peak, peak_of


def test_the_peak_of_a_step_is_its_own():
    def hold(megabytes):
        torch.ones(megabytes * 2**18).sum()

    small, large, again = (peak_of(lambda size=size: hold(size), torch.device("cpu")).rss for size in (8, 256, 8))
    if small is not None:
        assert large - small > 200 * 2**20
        assert abs(again - small) < 100 * 2**20


def test_the_largest_peak_is_that_of_each_kind():
    one, other = PeakMemory(rss=3, cuda_allocated=1), PeakMemory(rss=2, cuda_allocated=4)
    assert largest_peak(one, other) == largest_peak(other, one) == PeakMemory(rss=3, cuda_allocated=4)
    assert largest_peak(PeakMemory(), one) == one
