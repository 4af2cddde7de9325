"""The recipe of each method on each model and task."""

from typing import Any

import pytest

from harness.config import recipes
from harness.config.presets import PRESETS
from harness.config.recipes import DEFAULT_METHODS, REFERENCES, method_config, train_recipe
from harness.tasks.facts import TASKS
from methods import BUILT_IN, get_method, registry

MODELS = (*PRESETS, "no-preset")
MEMORY = {
    "memory_length": 320,
    "projector_dim": 128,
    "visual_scale": 0.01,
    "memory_scale": 0.1,
    "memory_dropout": 0.1,
    "prompt_std": 0.02,
    "adapter_dim": 12,
    "adapter_scale": 0.1,
    "adapter_dropout": 0.1,
}
CONFIGS_AT_7B: dict[str, dict[str, Any]] = {
    "memvp": MEMORY,
    "dehvf": {
        **MEMORY,
        "num_groups": 4,
        "fuser_dim": 64,
        "fuser_blocks": 4,
        "fuser_heads": 4,
        "fusion": "adaptive",
        "query": "network",
        "separate_queries": True,
        "prompts_in": "both",
    },
    "lavin": {
        "projector_dim": 128,
        "feature_stride": 4,
        "adapter_dim": 8,
        "adapter_groups": 2,
        "adapter_scale": 1.0,
        "adapter_dropout": 0.1,
        "temperature": 10.0,
        "image_prefix": "Image: ",
        "text_prefix": "Image: N/A",
        "max_length": None,
    },
    "llava_lora": {
        "projector_dim": 128,
        "normalize_features": True,
        "lora_rank": 6,
        "lora_alpha": 12.0,
        "lora_dropout": 0.05,
        "lora_targets": ("q_proj", "v_proj"),
        "adapter_dim": 12,
        "adapter_scale": 0.1,
        "adapter_dropout": 0.1,
        "max_length": None,
    },
    "llama_adapter": {
        "num_prompts": 10,
        "num_adapter_layers": None,
        "prompt_std": 1.0,
        "num_scales": 4,
        "projector_dim": 64,
    },
}
"""Method -> its whole config at 7B: what is published, and what the head of the method's file chooses instead."""
OTHERWISE_AT_13B: dict[str, dict[str, Any]] = {
    "memvp": {"memory_length": 400},
    "dehvf": {"memory_length": 400},
    "lavin": {"temperature": 5.0},
}
TRAINING = {
    "batch_size": 32,
    "min_lr": 0.0,
    "weight_decay": 0.02,
    "betas": (0.9, 0.95),
    "max_grad_norm": None,
    "max_length": 512,
    "image_statistics": "imagenet",
}
"""How every method trains at the size of the paper, on either task."""
LENGTHS = {
    "scienceqa": {"epochs": 20, "warmup_epochs": 2},
    "coco": {"epochs": 5, "warmup_epochs": 0.5},
}
BASE_RATES = {"memvp": 9e-3, "dehvf": 2e-2, "lavin": 9e-3, "llava_lora": 9e-3, "llama_adapter": 9e-3}


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


@pytest.mark.parametrize("model", ["7b", "13b"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_sizes_and_factors_at_the_size_of_the_paper(name: str, model: str) -> None:
    """The values are written out once more, because a changed default would train a method that nobody published."""
    config = get_method(name).Config(**method_config(name, model))
    otherwise = OTHERWISE_AT_13B.get(name, {}) if model == "13b" else {}
    assert config.model_dump() == {**CONFIGS_AT_7B[name], **otherwise}


@pytest.mark.parametrize("task", LENGTHS)
@pytest.mark.parametrize("model", ["7b", "13b"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_schedule_and_rates_at_the_size_of_the_paper(name: str, model: str, task: str) -> None:
    expected = {**TRAINING, **LENGTHS[task], "base_lr": BASE_RATES[name]}
    assert train_recipe(name, model, task).model_dump(include=set(expected)) == expected


def test_published_rate_at_7b() -> None:
    recipe = train_recipe("memvp", "7b", "scienceqa")
    assert (recipe.base_lr, recipe.batch_size) == (9e-3, 32)
    assert recipe.learning_rate == pytest.approx(1.125e-3)
    assert train_recipe("dehvf", "7b", "scienceqa").learning_rate == pytest.approx(2.5e-3)
