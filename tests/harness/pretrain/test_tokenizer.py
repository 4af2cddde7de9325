"""The tokenizer of the tiny backbone."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from harness.data.mini.world import NUMBERS, VOCABULARY
from harness.pretrain.tokenizer import build_tokenizer, world_words


@pytest.fixture(scope="module")
def auto(tiny: Path):
    """The shipped tokenizer as `AutoTokenizer` loads it."""
    return AutoTokenizer.from_pretrained(tiny / "llm", local_files_only=True)


@settings(max_examples=100)
@given(text=st.text())
def test_any_text_survives_a_round_trip(tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < len(tokenizer)


def test_words_of_the_world_are_single_tokens(tokenizer) -> None:
    words = {word for vocabulary in VOCABULARY.values() for word in vocabulary} | set(NUMBERS) | set(world_words())
    for form in [*words, *(f" {word}" for word in words), *(f" ({x})" for x in "ABCDE"), *(f" {x}" for x in "ABCDE")]:
        assert len(tokenizer.encode(form, add_special_tokens=False)) == 1, form


def test_auto_tokenizer_gives_the_same_ids_and_adds_none(tokenizer, auto) -> None:
    text = "Question: Which colour?\nContext: N/A\nOptions: (A) red (B) blue\nResponse:The answer is B."
    assert auto.encode(text) == tokenizer.encode(text, add_special_tokens=False)


def test_auto_tokenizer_knows_the_special_tokens(auto) -> None:
    assert (auto.pad_token, auto.bos_token, auto.eos_token) == ("<pad>", "<s>", "</s>")


def test_eos_has_the_highest_id_which_clip_pools_at(auto) -> None:
    assert auto.eos_token_id == len(auto) - 1


def test_building_reproduces_the_shipped_tokenizer(tiny: Path) -> None:
    shipped = json.loads((tiny / "llm" / "tokenizer.json").read_text())
    assert json.loads(build_tokenizer().backend_tokenizer.to_str())["model"] == shipped["model"]
