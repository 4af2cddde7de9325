"""The shipped backbone: what its card claims, measured again on a sample."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import harness
from harness.data.mini.world import NUMBERS, VOCABULARY
from harness.data.prompts import tokenize_example
from harness.errors import UserError
from harness.pretrain import check, pretrain
from harness.pretrain.clip import train_clip
from harness.pretrain.documents import STAGES
from harness.pretrain.llm import Batches, train_llm
from harness.pretrain.probe import probe_accuracy
from harness.pretrain.tokenizer import build_tokenizer, world_words

TINY = Path(harness.__file__).parent / "assets" / "tiny"


@cache
def llm():
    return check.load_llm(TINY / "llm")


def test_oracle_answers_picture_questions_from_words() -> None:
    model, tokenizer = llm()
    assert check.oracle_accuracy(model, tokenizer, check.test_items("image", 300))["all"] >= 0.90


def test_without_the_scene_picture_questions_are_at_chance() -> None:
    model, tokenizer = llm()
    blind = [replace(item, draft=replace(item.draft, scene=None)) for item in check.test_items("image", 300)]
    assert check.oracle_accuracy(model, tokenizer, blind)["all"] < 0.40


def test_clip_retrieves_captions_of_unseen_pictures() -> None:
    clip = check.load_clip(TINY / "clip")
    assert check.retrieval_accuracy(clip, llm()[1], images=256) >= 0.80


def test_all_patches_tell_where_a_thing_is_and_neither_one_of_them_nor_cls_tokens_do() -> None:
    found = probe_accuracy(check.load_clip(TINY / "clip"), fit=300, held_out=200)
    assert min(found["patches"]["place"]) > 0.9
    assert max(found["cls"]["place"]) < 0.45
    assert max(found["patch"]["place"]) < 0.65
    assert min(found["patch"]["colour"]) > 0.7
    assert min(found["cls"]["colour"]) > 0.7


def test_size_positions_and_shape() -> None:
    model, tokenizer = llm()
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file()) < 15_000_000
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 1024
    assert model.config.num_hidden_layers == 8
    vision = json.loads((TINY / "clip" / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]
    assert (vision["image_size"] // vision["patch_size"]) ** 2 == 64
    assert vision["layers"] == 8
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_long_text_runs_through() -> None:
    model, tokenizer = llm()
    ids = tokenize_example(tokenizer, "Größe ½ 世界 " * 400, "The answer is B.", 1024).input_ids
    assert len(ids) == 1024
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits).all()


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_tokenizer_round_trips_any_text(text: str) -> None:
    tokenizer = llm()[1]
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < len(tokenizer)


def test_words_of_the_world_are_single_tokens() -> None:
    tokenizer = llm()[1]
    words = {word for vocabulary in VOCABULARY.values() for word in vocabulary} | set(NUMBERS) | set(world_words())
    for form in [*words, *(f" {word}" for word in words), *(f" ({x})" for x in "ABCDE"), *(f" {x}" for x in "ABCDE")]:
        assert len(tokenizer.encode(form, add_special_tokens=False)) == 1, form


def test_auto_tokenizer_loads_the_same_and_adds_nothing() -> None:
    tokenizer, auto = llm()[1], AutoTokenizer.from_pretrained(TINY / "llm", local_files_only=True)
    text = "Question: Which colour?\nContext: N/A\nOptions: (A) red (B) blue\nResponse:The answer is B."
    assert auto.encode(text) == tokenizer.encode(text, add_special_tokens=False)
    assert (auto.pad_token, auto.bos_token, auto.eos_token) == ("<pad>", "<s>", "</s>")
    assert auto.eos_token_id == len(auto) - 1  # the highest id, where CLIP's argmax pooling looks


def test_tokenizer_and_batches_are_deterministic() -> None:
    tokenizer = build_tokenizer()
    shipped = json.loads((TINY / "llm" / "tokenizer.json").read_text())
    assert json.loads(tokenizer.backend_tokenizer.to_str())["model"] == shipped["model"]
    first, second = Batches(tokenizer, 5), Batches(tokenizer, 5)
    for stage in range(len(STAGES)):
        one, other = first.next(stage), second.next(stage)
        for field in ("ids_BL", "letters_BL", "scored_BL"):
            assert torch.equal(getattr(one, field), getattr(other, field))
        assert (one.overlay is None) == (other.overlay is None)
        if one.overlay and other.overlay:
            assert torch.equal(one.overlay.weights_BLW, other.overlay.weights_BLW)


@pytest.mark.parametrize("stage", range(len(STAGES)))
def test_answer_letters_are_marked(stage: int) -> None:
    tokenizer = build_tokenizer()
    batches = Batches(tokenizer, 0)
    for _ in range(5):
        batch = batches.next(stage)
        assert not (batch.letters_BL & ~batch.scored_BL).any()
        marked = {tokenizer.decode([i]) for i in batch.ids_BL[batch.letters_BL].tolist()}
        assert marked <= {" A", " B", " C", " D", " E"}
    assert marked


def test_training_is_deterministic(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    lines: list[str] = []
    for name in ("once", "again"):
        train_llm(tmp_path / name / "llm", tokenizer, 3, 2, lambda step, line: lines.append(line))
        train_clip(tmp_path / name / "clip", tokenizer, 3, 1, lambda step, line: lines.append(line))
    for file in ("llm/model.safetensors", "clip/open_clip_model.safetensors"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_pretrain_refuses_no_steps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one step"):
        pretrain(tmp_path, llm_steps=0)
