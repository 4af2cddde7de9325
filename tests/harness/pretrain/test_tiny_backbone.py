"""The shipped backbone: the numbers of its model card, measured again on a sample."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.data.prompts import tokenize_example
from harness.pretrain import check
from harness.pretrain.probe import probe_accuracy


@pytest.mark.slow
def test_without_the_scene_picture_questions_are_at_chance(llm) -> None:
    blind = [replace(item, draft=replace(item.draft, scene=None)) for item in check.test_items("image", 300)]
    assert check.oracle_accuracy(*llm, blind)["all"] < 0.40


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "floor"), [("image", 0.90), ("text", 0.95), ("none", 0.95)])
def test_the_language_model_has_learned_every_sort_of_question(llm, mode: str, floor: float) -> None:
    assert check.oracle_accuracy(*llm, check.test_items(mode, 300))["all"] >= floor


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_the_language_model_reads_overlays(llm, own: bool) -> None:
    assert check.overlay_accuracy(*llm, check.test_items("image", 200), own) >= 0.60


@pytest.mark.slow
def test_clip_retrieves_captions_of_unseen_pictures(clip, tokenizer) -> None:
    assert check.retrieval_accuracy(clip, tokenizer, images=256) >= 0.95


@pytest.fixture(scope="module")
def probed(clip) -> dict[str, dict[str, list[float]]]:
    """What a linear layer reads from CLIP's features, on few scenes."""
    return probe_accuracy(clip, fit=300, held_out=200)


@pytest.mark.slow
def test_all_patches_together_say_where_a_thing_is(probed) -> None:
    assert min(probed["patches"]["place"]) > 0.9


@pytest.mark.slow
def test_the_cls_tokens_say_where_a_thing_is(probed) -> None:
    assert min(probed["cls"]["place"]) >= 0.95


@pytest.mark.slow
def test_a_single_patch_says_where_a_thing_is(probed) -> None:
    assert min(probed["patch"]["place"]) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("features", ["patch", "cls"])
def test_the_colour_of_a_thing_can_be_read(probed, features: str) -> None:
    assert min(probed[features]["colour"]) > 0.7


def test_the_files_are_small(tiny: Path) -> None:
    assert sum(path.stat().st_size for path in tiny.rglob("*") if path.is_file()) < 15_000_000


def test_shape_of_the_language_model(llm) -> None:
    model, tokenizer = llm
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 1024
    assert model.config.num_hidden_layers == 8
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_shape_of_the_vision_tower(tiny: Path) -> None:
    vision = json.loads((tiny / "clip" / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]
    assert (vision["image_size"] // vision["patch_size"]) ** 2 == 64
    assert vision["layers"] == 8


def test_the_longest_text_gives_finite_logits(llm) -> None:
    model, tokenizer = llm
    ids = tokenize_example(tokenizer, "Größe ½ 世界 " * 400, "The answer is B.", 1024).input_ids
    assert len(ids) == 1024
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits).all()
