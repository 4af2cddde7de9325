"""The estimate of a run's memory: what makes it larger or smaller, and the options that make a run fit."""

import pytest
import torch

from harness.backbone.language_model import llm_size
from harness.config.presets import PRESETS, resolve_spec
from harness.config.recipe import CaptionRecipe, ChoiceRecipe, TrainRecipe
from harness.records import Parameters
from harness.run.footprint import COLLECTED_LAYERS, TYPICAL_TOKENS, Sizes, options_that_fit

GIB = 2**30
COUNTS = Parameters(trainable=4_000_000, paper_convention=4_000_000, total=7_100_000_000, by_module={})
RECIPE = ChoiceRecipe.model_validate({})


def sizes(quantize: str | None = None) -> Sizes:
    """Return the sizes of 7B in bfloat16 with a small method."""
    return Sizes(resolve_spec("7b", quantize=quantize), torch.bfloat16, COUNTS)


def with_(**fields: object) -> TrainRecipe:
    """Return the recipe with other values."""
    return RECIPE.model_copy(update=fields)


def test_weights_and_optimiser_are_counted_by_their_formats() -> None:
    """Beside the activations: all frozen values in bfloat16, and 16 bytes per trained one."""
    least = sizes().bytes(with_(gradient_checkpointing=True, eval_batch_size=1), 1)
    weights = 2 * (COUNTS.total - COUNTS.trainable) + 16 * COUNTS.trainable
    assert 0 < least - weights < 0.2 * GIB
    for quantize in ("8bit", "4bit"):
        saved = sizes().bytes(RECIPE, 4) - sizes(quantize).bytes(RECIPE, 4)
        plain, packed = (llm_size(resolve_spec("7b", quantize=q), torch.bfloat16).bytes for q in (None, quantize))
        assert saved == plain - packed > 5 * GIB


def test_training_keeps_34_values_or_the_inputs_of_the_layers_alone() -> None:
    unit = TYPICAL_TOKENS * 4096 * 2
    recipe = with_(eval_batch_size=1)
    assert sizes().bytes(recipe, 9) - sizes().bytes(recipe, 8) == 34 * 32 * unit
    recomputing = with_(eval_batch_size=1, gradient_checkpointing=True)
    assert sizes().bytes(recomputing, 9) - sizes().bytes(recomputing, 8) == (34 + 32) * unit


def test_an_evaluation_batch_counts_where_it_is_larger() -> None:
    small, large = with_(gradient_checkpointing=True), with_(gradient_checkpointing=True, eval_batch_size=64)
    per_sample = TYPICAL_TOKENS * 2 * (2 * 32 * 4096 + 34 * 4096)
    assert sizes().bytes(large, 1) - sizes().bytes(small, 1) == (64 - small.eval_batch_size) * per_sample
    one, three = (CaptionRecipe.model_validate({"beams": beams, "gradient_checkpointing": True}) for beams in (1, 3))
    assert sizes().bytes(three, 1) - sizes().bytes(one, 1) == 2 * one.eval_batch_size * per_sample


@pytest.mark.parametrize(
    ("free", "micro_batch", "options"),
    [
        (18, 4, ""),
        (15, 4, "--set gradient_checkpointing=true --set eval_batch_size=16"),
        (14, None, "--set gradient_checkpointing=true --set eval_batch_size=4"),
        (12, 4, "--quantize 8bit"),
        (8, 4, "--quantize 8bit --set gradient_checkpointing=true --set eval_batch_size=4"),
        (5, 4, "--quantize 4bit --set gradient_checkpointing=true --set eval_batch_size=4"),
    ],
)
def test_what_changes_no_result_is_tried_first(free: float, micro_batch: int | None, options: str) -> None:
    found = options_that_fit(sizes(), RECIPE, micro_batch, int(free * GIB))
    assert found is not None and found[1].bytes <= free * GIB
    assert found[0] == options


def test_a_quantised_run_is_not_told_to_quantise_less() -> None:
    found = options_that_fit(sizes("8bit"), RECIPE, 4, 5 * GIB)
    assert found is not None and found[0].startswith("--quantize 4bit")
    assert options_that_fit(sizes("4bit"), RECIPE, 4, 3 * GIB) is None
    assert options_that_fit(sizes(), RECIPE, 4, GIB) is None


def test_a_given_micro_batch_is_kept_and_an_automatic_one_is_halved() -> None:
    assert sizes().that_fits(RECIPE, 32, GIB).micro_batch == 32
    assert sizes().that_fits(RECIPE, None, GIB).micro_batch == 1
    assert sizes().that_fits(RECIPE, None, 100 * GIB).micro_batch == RECIPE.batch_size


def test_processes_that_share_the_samples_hold_a_part_of_them_each() -> None:
    recipe = with_(eval_batch_size=1)
    shared = Sizes(resolve_spec("7b"), torch.bfloat16, COUNTS, processes=8)
    for one in (shared, shared.quantised(None)):
        assert one.that_fits(recipe, None, 100 * GIB).micro_batch == recipe.batch_size / 8
    assert shared.that_fits(recipe, None, 100 * GIB) == sizes().that_fits(recipe, recipe.batch_size // 8, 100 * GIB)
    assert PRESETS["7b"].recipe == resolve_spec("7b", quantize="4bit").recipe


def test_processes_that_divide_the_layers_keep_a_part_and_the_layers_that_they_have_collected() -> None:
    spec = resolve_spec("7b")
    one, four = (Sizes(spec, torch.bfloat16, COUNTS, shards) for shards in (1, 4))
    layer = llm_size(spec, torch.bfloat16).layer_bytes
    assert layer == 2 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096)
    assert one.bytes(RECIPE, 4) - four.bytes(RECIPE, 4) == layer * (32 * 3 / 4 - COLLECTED_LAYERS)
    assert "--quantize" in (options_that_fit(one, RECIPE, 4, 9 * GIB) or ("", None))[0]
    assert options_that_fit(four, RECIPE, 4, 3 * GIB) is None  # divided layers are not quantised
