"""The length of training in optimiser steps, and the learning rate against the published schedule's figures."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.plan import Overrides, plan_runs
from harness.config.presets import PRESETS
from harness.config.recipe import TrainRecipe
from harness.errors import UserError
from harness.run.schedule import TrainingLength, learning_rate, training_length, with_steps

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "memvp.json").read_text())["extras"]["lr_schedule"]
lengths = st.floats(0.1, 100)
shares = st.floats(0, 1)


@pytest.mark.parametrize(("epoch", "expected"), GOLDEN["epoch_lr"])
def test_equals_the_published_schedule(epoch: float, expected: float) -> None:
    args = GOLDEN["args"]
    rate = learning_rate(
        epoch, peak=args["lr"], minimum=args["min_lr"], warmup_epochs=args["warmup_epochs"], epochs=args["epochs"]
    )
    assert rate == pytest.approx(expected, rel=1e-12, abs=1e-18)


@given(epochs=lengths, warmup=shares, at=shares, low=st.floats(0, 0.5))
def test_stays_between_zero_and_the_peak(epochs: float, warmup: float, at: float, low: float) -> None:
    rate = learning_rate(at * epochs, peak=1.0, minimum=low, warmup_epochs=warmup * epochs, epochs=epochs)
    assert 0 <= rate <= 1
    if at * epochs >= warmup * epochs:
        assert rate >= low


@given(epochs=lengths, warmup=st.floats(0.01, 0.9), first=shares, second=shares)
def test_rises_in_the_warmup_and_falls_after(epochs: float, warmup: float, first: float, second: float) -> None:
    def rate(share: float) -> float:
        return learning_rate(share * epochs, peak=1.0, minimum=0.1, warmup_epochs=warmup * epochs, epochs=epochs)

    early, late = sorted((first, second))
    if late < warmup:
        assert rate(early) <= rate(late)
    elif early * epochs >= warmup * epochs:
        assert rate(early) >= rate(late) - 1e-12


def test_ends() -> None:
    def rate(epoch: float, warmup: float = 2.0) -> float:
        return learning_rate(epoch, peak=3.0, minimum=0.5, warmup_epochs=warmup, epochs=10)

    assert rate(0) == 0
    assert rate(2) == 3.0
    assert rate(10) == pytest.approx(0.5)
    assert rate(11) == pytest.approx(0.5)  # rounding to whole steps may go past the last epoch
    assert rate(0, warmup=0) == 3.0
    assert rate(10, warmup=10) == 3.0  # all of the training is warm-up


# The length of training


@given(examples=st.integers(1, 10_000), batch=st.integers(1, 64))
def test_an_epoch_sees_every_example_once(examples: int, batch: int) -> None:
    recipe = TrainRecipe(epochs=1, warmup_epochs=0, batch_size=batch)
    per_epoch = math.ceil(examples / batch)
    assert training_length(examples, recipe) == TrainingLength(per_epoch, per_epoch)


def test_training_takes_at_least_one_step() -> None:
    recipe = TrainRecipe(epochs=0.01, warmup_epochs=0, batch_size=4)
    assert training_length(8, recipe) == TrainingLength(steps=1, steps_per_epoch=2)


@given(examples=st.integers(1, 20_000), steps=st.integers(1, 5000))
def test_a_plan_takes_as_many_steps_as_it_is_given(examples: int, steps: int) -> None:
    (plan,) = plan_runs(["memvp"], (), [0], PRESETS["7b"], "scienceqa", Overrides())
    changed = with_steps(plan, steps, examples)
    assert training_length(examples, changed.recipe).steps == steps
    assert changed.recipe.warmup_epochs / changed.recipe.epochs == pytest.approx(0.1)


@pytest.mark.parametrize("key", ["warmup_epochs", "memvp.warmup_epochs"])
def test_a_warmup_that_was_given_is_kept(key: str) -> None:
    (plan,) = plan_runs(["memvp"], (), [0], PRESETS["7b"], "scienceqa", Overrides(settings={key: 1}))
    changed = with_steps(plan, 20, 320, {key: 1})
    assert (changed.recipe.epochs, changed.recipe.warmup_epochs) == (2, 1)
    with pytest.raises(UserError, match=r"^--set warmup_epochs: 1 exceeds the 0\.5 epochs of --steps 5 \(memvp\);"):
        with_steps(plan, 5, 320, {key: 1})


def test_the_oracle_has_no_steps() -> None:
    (oracle,) = plan_runs(["oracle"], (), [0], PRESETS["7b"], "scienceqa", Overrides())
    assert with_steps(oracle, steps=3, num_examples=8) is oracle
