"""The fields of a recipe, and what follows from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.recipe import TrainRecipe
from harness.errors import UserError


def test_rate_follows_the_samples_of_a_step() -> None:
    recipe = TrainRecipe(base_lr=0.1, batch_size=16)
    assert recipe.learning_rate == pytest.approx(0.1 * 16 / 256)


@given(epochs=st.floats(0.01, 1000))
def test_another_length_keeps_the_share_of_the_warmup(epochs: float) -> None:
    recipe = TrainRecipe(epochs=20, warmup_epochs=2)
    other = recipe.with_length(epochs)
    assert other.epochs == epochs
    assert other.warmup_epochs == pytest.approx(epochs / 10)
    changed = {"epochs", "warmup_epochs", "tuning"}
    assert other.model_dump(exclude=changed) == recipe.model_dump(exclude=changed)


def test_the_note_on_a_search_says_that_the_length_is_another() -> None:
    recipe = TrainRecipe(epochs=6, warmup_epochs=1, tuning="six epochs, as searched")
    assert recipe.with_length(6).tuning == recipe.tuning
    assert recipe.with_length(3).tuning == f"the length as given on the command line; the rest: {recipe.tuning}"


@pytest.mark.parametrize("epochs", [0.0, -1.0, float("nan"), float("inf")])
def test_no_such_length(epochs: float) -> None:
    with pytest.raises(UserError, match="--epochs"):
        TrainRecipe().with_length(epochs)
