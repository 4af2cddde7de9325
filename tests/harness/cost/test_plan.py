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
