"""Peak memory of one step."""

import torch

from harness.run.memory import peak_of


def test_the_peak_of_a_step_is_its_own():
    def hold(megabytes):
        torch.ones(megabytes * 2**18).sum()

    small, large, again = (peak_of(lambda size=size: hold(size), torch.device("cpu")).rss for size in (8, 256, 8))
    if small is not None:
        assert large - small > 200 * 2**20
        assert abs(again - small) < 100 * 2**20
