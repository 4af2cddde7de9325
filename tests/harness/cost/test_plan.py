"""The options of `speed`: which methods and depths cannot be timed."""

from dataclasses import replace

import pytest

from harness.errors import UserError
from tests.harness.cost.small_speed import MACHINE, plan


def test_a_baseline_that_is_not_trained_is_rejected():
    with pytest.raises(UserError, match="--methods oracle"):
        plan(("oracle",))


def test_an_ablation_is_rejected_because_it_would_be_taken_for_its_method():
    with pytest.raises(UserError, match="--methods dehvf-no_visual_prompts: Table 2"):
        plan(("dehvf", "blind"))


def test_another_depth_is_rejected_for_pretrained_weights():
    with pytest.raises(UserError, match="--layers 2: needs --weights random"):
        plan(layers=2, machine=replace(MACHINE, weights="pretrained"))


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_processes_share_the_rounds_evenly(processes):
    parts = replace(plan(("memvp",), processes=1), steps=7, processes=processes).parts
    assert [number for part in parts for number in part] == list(range(7))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_more_processes_than_rounds_are_rejected():
    with pytest.raises(UserError, match=r"^--processes 3: more than the 2 rounds of --steps"):
        plan(("memvp",), processes=3)
