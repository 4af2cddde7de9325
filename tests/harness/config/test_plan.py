"""Which runs the options of a command give."""

from dataclasses import replace

import pytest

from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import PRESETS
from harness.errors import UserError
from harness.records import spec_hash
from methods import get_method, registry

ABLATIONS = list(get_method("dehvf").ablations)


def plan(*methods: str, ablations: tuple[str, ...] = (), seeds: tuple[int, ...] = (0,), **overrides) -> list[RunPlan]:
    return plan_runs(methods, ablations, seeds, PRESETS["tiny"], "scienceqa", Overrides(**overrides))


def labels(plans: list[RunPlan]) -> list[str]:
    return [p.label for p in plans]


def test_methods_by_seeds() -> None:
    plans = plan("memvp", "dehvf", seeds=(3, 1))
    assert [(p.label, p.seed) for p in plans] == [("memvp", 3), ("memvp", 1), ("dehvf", 3), ("dehvf", 1)]


def test_all_methods_once() -> None:
    assert labels(plan("memvp", "all", "dehvf")) == ["memvp", *(name for name in registry() if name != "memvp")]


def test_reference_rows() -> None:
    blind, oracle = plan("blind", "oracle", seeds=(5,))
    assert (blind.method, blind.variant, blind.config.fusion, blind.seed) == ("dehvf", "no_visual_prompts", "none", 5)
    assert (oracle.method, oracle.config, oracle.seed, oracle.is_oracle) == ("oracle", None, 0, True)


def test_reference_rows_have_no_published_protocol() -> None:
    for name in ("blind", "oracle"):
        with pytest.raises(UserError, match="--protocol published"):
            plan(name, protocol="published")


def test_the_oracle_runs_once_whatever_the_seeds() -> None:
    assert len(plan("oracle", seeds=(0, 1, 2))) == 1


def test_ablations_all_and_named() -> None:
    assert labels(plan("dehvf", ablations=("all",))) == [f"dehvf-{name}" for name in ABLATIONS]
    assert labels(plan("dehvf", ablations=("keys_only", "values_only"))) == ["dehvf-keys_only", "dehvf-values_only"]


def test_ablations_of_the_methods_that_have_them() -> None:
    assert labels(plan("dehvf", "memvp", ablations=("keys_only",))) == ["dehvf-keys_only"]
    assert labels(plan("all", ablations=("all",)))[0] == f"dehvf-{ABLATIONS[0]}"


def test_duplicates_collapse() -> None:
    assert labels(plan("memvp", "memvp")) == ["memvp"]
    assert labels(plan("dehvf", "blind", ablations=("no_visual_prompts", "all"))) == [f"dehvf-{x}" for x in ABLATIONS]


@pytest.mark.parametrize(
    ("methods", "ablations", "message"),
    [
        (("memvpp",), (), "did you mean memvp"),
        (("memvpp",), ("all",), "did you mean memvp"),
        (("dehvf",), ("key_only",), "did you mean keys_only"),
        (("dehvf",), ("quite_other",), "available: no_visual_prompts"),
        (("memvp",), ("keys_only",), "no such ablation of memvp"),
        (("memvp",), ("all",), "no such ablation of memvp"),
        (("dehvf",), ("all", "key_only"), "did you mean keys_only"),
    ],
)
def test_unknown_names(methods: tuple[str, ...], ablations: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(*methods, ablations=ablations)


@pytest.mark.parametrize("seeds", [(), (-1,), (2**32,), (0, -5)])
def test_seeds_that_are_none(seeds: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="--seeds"):
        plan("memvp", seeds=seeds)


def test_epochs_override_every_trained_recipe() -> None:
    memvp, oracle = plan("memvp", "oracle", epochs=2.5)
    assert memvp.recipe.epochs == 2.5
    assert oracle.recipe == plan("oracle")[0].recipe


def test_the_length_leaves_what_is_set_and_is_given_once() -> None:
    (memvp,) = plan("memvp", epochs=20, settings={"warmup_epochs": 8})
    assert (memvp.recipe.epochs, memvp.recipe.warmup_epochs) == (20, 8)
    with pytest.raises(UserError, match=r"^--epochs 3: --set epochs says 10 \(memvp\); give one of them$"):
        plan("memvp", epochs=3, settings={"epochs": 10})


def test_an_ablation_cannot_be_undone_and_keep_its_name() -> None:
    """Tables show the newest configuration of an ablation, so another method must not get the name of the ablation."""
    with pytest.raises(UserError, match="--set prompts_in: dehvf-keys_only fixes prompts_in=keys; remove this"):
        plan("dehvf", ablations=("keys_only",), settings={"dehvf.prompts_in": "both"})
    (same,) = plan("dehvf", ablations=("keys_only",), settings={"prompts_in": "keys", "memory_scale": 0.5})
    assert same.config.prompts_in == "keys" and same.config.memory_scale == 0.5


def test_a_field_that_recipe_and_method_have_is_the_methods_under_its_name() -> None:
    (lavin,) = plan("lavin", settings={"max_length": 100, "lavin.max_length": 50})
    assert (lavin.recipe.max_length, lavin.config.max_length) == (100, 50)


def test_a_resolved_plan_is_plain_data_without_the_seed() -> None:
    first, second = plan("dehvf", seeds=(0, 1))
    assert first.resolved() == second.resolved()
    assert set(first.resolved()) == {"method", "train"}
    assert spec_hash(first.resolved()) != spec_hash(plan("memvp")[0].resolved())


def test_what_is_said_of_a_recipe_does_not_make_another_run_of_it() -> None:
    (run,) = plan("memvp")
    assert "tuning" not in run.resolved()["train"]
    again = replace(run, recipe=run.recipe.model_copy(update={"tuning": "looked at again"}))
    assert spec_hash(again.resolved()) == spec_hash(run.resolved())
