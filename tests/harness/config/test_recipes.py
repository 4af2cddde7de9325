"""The recipe of each method on each model and task."""

import pytest

from harness.config import recipes
from harness.config.presets import PRESETS
from harness.config.recipes import DEFAULT_METHODS, REFERENCES, method_config, train_recipe
from harness.tasks.facts import TASKS
from methods import BUILT_IN, get_method, registry

MODELS = (*PRESETS, "no-preset")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", registry())
def test_every_recipe_builds_a_valid_config(name: str, model: str) -> None:
    method = get_method(name)
    for variant in (None, *getattr(method, "ablations", {})):
        method.Config(**method_config(name, model, variant))
    for task in ("scienceqa", "coco"):
        assert train_recipe(name, model, task).tuning


def test_every_entry_is_of_a_task_a_method_and_a_preset_that_exist() -> None:
    """A misspelt name would leave the defaults in force without a word."""
    known = {*TASKS, *BUILT_IN, *PRESETS}
    parts = [
        part for table in (recipes._TRAIN, recipes._TRAIN_OF_METHOD, recipes._METHOD) for key in table for part in key
    ]
    assert {*parts, *(part for key in recipes._PUBLISHED for part in key), *recipes._NOT_REPEATABLE} <= known


def test_reference_rows_are_ablations_that_exist() -> None:
    assert "blind" in REFERENCES
    for method, variant in REFERENCES.values():
        assert variant in get_method(method).ablations


def test_defaults_are_registered() -> None:
    assert set(DEFAULT_METHODS) <= set(registry())


@pytest.mark.parametrize("model", ["7b", "13b"])
@pytest.mark.parametrize("name", registry())
def test_captions_at_the_size_of_the_paper_say_where_length_and_rates_come_from(name: str, model: str) -> None:
    captions, questions = (train_recipe(name, model, task) for task in ("coco", "scienceqa"))
    assert (captions.epochs, captions.base_lr) == (5, questions.base_lr)
    assert "the epochs of the paper" in captions.tuning and "the epochs of the paper" not in questions.tuning
    # What is said about the rates of a method on questions is said about its captions, too.
    for said in ("printed 2e-2 is read as the base rate", "no recipe is published", "script for Alpaca"):
        assert (said in captions.tuning) == (said in questions.tuning)


def test_published_rate_at_7b() -> None:
    recipe = train_recipe("memvp", "7b", "scienceqa")
    assert (recipe.base_lr, recipe.batch_size) == (9e-3, 32)
    assert recipe.learning_rate == pytest.approx(1.125e-3)
    assert train_recipe("dehvf", "7b", "scienceqa").learning_rate == pytest.approx(2.5e-3)
