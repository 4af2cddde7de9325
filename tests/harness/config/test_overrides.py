"""How `--set` changes recipes and methods."""

from typing import Any

import pytest

from harness.config.overrides import apply_overrides, merge_settings
from harness.config.plan import Overrides, plan_runs
from harness.config.presets import PRESETS
from harness.config.recipe import TrainRecipe
from harness.config.recipes import train_recipe
from harness.errors import UserError


def plans(*names: str, **settings: Any) -> Any:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return plan_runs(names, (), (0,), PRESETS["7b"], "scienceqa", Overrides(settings=dotted))


def test_a_setting_reaches_recipe_and_method() -> None:
    (plan,) = plans("memvp", weight_decay=0.5, memory_length=300)
    assert plan.recipe.weight_decay == 0.5
    assert plan.config.memory_length == 300


def test_a_setting_of_one_method_leaves_the_other_alone() -> None:
    before = plans("dehvf", "memvp")
    after = plans("dehvf", "memvp", memvp__base_lr=0.5, dehvf__fuser_dim=32)
    assert [plan.recipe.base_lr for plan in after] == [before[0].recipe.base_lr, 0.5]
    assert (after[0].config.fuser_dim, after[1].config) == (32, before[1].config)


@pytest.mark.parametrize("keys", [("base_lr", "dehvf.base_lr"), ("dehvf.base_lr", "base_lr")])
def test_a_setting_of_one_method_counts_more_than_one_of_all_in_any_order(keys: tuple[str, str]) -> None:
    values = {"base_lr": 0.02, "dehvf.base_lr": 0.1}
    overrides = Overrides(settings={key: values[key] for key in keys})
    found = plan_runs(("dehvf", "memvp"), (), (0,), PRESETS["7b"], "scienceqa", overrides)
    assert [plan.recipe.base_lr for plan in found] == [0.1, 0.02]


def test_a_setting_of_the_command_line_replaces_those_of_single_methods_in_a_file() -> None:
    fields = TrainRecipe.model_fields
    file = {"base_lr": 1, "memvp.base_lr": 2, "memvp.memory_length": 3, "lavin.max_length": 4}
    assert merge_settings(file, {"base_lr": 5}, fields) == {
        "base_lr": 5,
        "memvp.memory_length": 3,
        "lavin.max_length": 4,
    }
    assert "memvp.memory_length" not in merge_settings(file, {"memory_length": 6}, fields)
    assert merge_settings(file, {"memvp.base_lr": 7}, fields) == {**file, "memvp.base_lr": 7}
    # LaVIN has a `max_length` of its own, which is not that of the recipe.
    assert merge_settings(file, {"max_length": 8}, fields) == {**file, "max_length": 8}


def test_unknown_key_lists_the_fields() -> None:
    with pytest.raises(UserError, match=r"--set memory_lenght: neither the recipe nor memvp .*base_lr.*memory_length"):
        plans("memvp", memory_lenght=3)


def test_a_field_of_one_method_only_says_how_to_set_it() -> None:
    with pytest.raises(UserError, match=r"--set fuser_dim: .*memvp.*METHOD\.fuser_dim"):
        plans("dehvf", "memvp", fuser_dim=32)


@pytest.mark.parametrize("key", ["lavin__base_lr", "memvpp__base_lr", "a__b__base_lr"])
def test_a_setting_of_a_method_outside_the_run_is_an_error(key: str) -> None:
    with pytest.raises(UserError, match="is not a method of this run; the run has dehvf, memvp"):
        plans("dehvf", "memvp", **{key: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base_lr", 0),
        ("base_lr", "fast"),
        ("base_lr", float("inf")),
        ("base_lr", float("nan")),
        ("batch_size", 2.5),
        ("warmup_epochs", 100),
        ("image_statistics", "mine"),
        ("memory_length", 0),
        ("visual_scale", float("nan")),
        ("memory_scale", float("-inf")),
        ("memory_length", None),
    ],
)
def test_bad_value(key: str, value: Any) -> None:
    with pytest.raises(UserError, match="--set"):
        plans("memvp", **{key: value})


def test_the_oracle_takes_what_concerns_it() -> None:
    trained, oracle = plans("memvp", "oracle", eval_batch_size=7, memory_length=300, memvp__base_lr=0.5)
    assert oracle.recipe.eval_batch_size == trained.recipe.eval_batch_size == 7
    assert oracle.recipe.base_lr != 0.5
    (alone,) = plans("oracle", oracle__eval_batch_size=9)
    assert alone.recipe.eval_batch_size == 9
    with pytest.raises(UserError, match="--set memory_length"):
        plans("oracle", memory_length=300)


def test_overrides_leave_their_arguments_alone() -> None:
    config = {"memory_length": 5}
    fields, _ = apply_overrides("memvp", config, TrainRecipe(), ("memory_length",), {"memory_length": 6})
    assert (config, fields) == ({"memory_length": 5}, {"memory_length": 6})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("betas", [2, 3]),
        ("betas", [0.9, 1.0]),
        ("max_grad_norm", -1),
        ("max_grad_norm", 0),
        ("base_lr", 1e300),
        ("base_lr", 10**400),
        ("batch_size", 10**400),
        ("epochs", 1e300),
        ("weight_decay", 1e30),
        ("max_length", 10**12),
        ("tuning", "x" * 5_000),
    ],
)
def test_a_value_that_no_run_can_use_is_refused(field: str, value: object) -> None:
    with pytest.raises(UserError, match=f"--set {field}"):
        apply_overrides("memvp", {}, train_recipe("memvp", "7b", "scienceqa"), [], {field: value})


def test_a_field_that_does_not_exist_is_answered_with_one_that_does() -> None:
    with pytest.raises(UserError, match=r"did you mean base_lr or min_lr\?"):
        apply_overrides("memvp", {}, train_recipe("memvp", "7b", "scienceqa"), [], {"lr": 1e-3})


def test_the_note_on_a_search_names_the_values_that_were_not_searched() -> None:
    recipe = train_recipe("memvp", "tiny", "scienceqa")
    assert "nine trials" in recipe.tuning
    changed = [{"base_lr": 1.0}, {"memory_length": 7}, {"base_lr": 1.0, "eval_split": "val"}]
    for settings in changed:
        _, other = apply_overrides("memvp", {}, recipe, ["memory_length"], settings)
        assert other.tuning == f"{next(iter(settings))} as given with --set; the rest: {recipe.tuning}"
    for settings in ({"eval_split": "val"}, {"captured": False}, {}):
        assert apply_overrides("memvp", {}, recipe, ["memory_length"], settings)[1].tuning == recipe.tuning
    assert apply_overrides("memvp", {}, recipe, [], {"base_lr": 1.0, "tuning": "mine"})[1].tuning == "mine"
