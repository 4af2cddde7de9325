"""Prompt strings and label masks, which must equal those of the reference code in every character and token."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from harness.data.problem import Problem
from harness.data.prompts import (
    ANSWER_PREFIX,
    FORMATS,
    IGNORED,
    build_open_prompt,
    build_prompt,
    encode,
    text_of,
    tokenize_example,
    tokenize_prompt,
)
from harness.data.scienceqa import load_scienceqa
from harness.errors import UserError
from tests.harness.data.number_tokenizer import NumberTokenizer

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "prompts.json").read_text())


def problem(raw: dict[str, Any]) -> Problem:
    fields = {key: raw[key] for key in ("question", "answer", "hint", "caption", "lecture", "solution")}
    return Problem(qid="1", split="test", choices=tuple(raw["choices"]), **fields)


@pytest.mark.parametrize("case", GOLDEN["prompts"], ids=lambda c: f"{c['format']}-{c['use_caption']}-{c['qid']}")
def test_reference_strings(case):
    prompt = build_prompt(problem(GOLDEN["problems"][case["qid"]]), case["format"], case["use_caption"])
    assert [prompt.prompt, prompt.answer] == case["out"]


@pytest.mark.parametrize("hint", ["", " ", "two  spaces"])
def test_a_question_without_options_is_asked_as_one_with_options_is(hint):
    asked = Problem("1", "test", "what  is it?", ("ice", "water"), 0, hint=hint)
    with_options = build_prompt(asked, "QCM-A").prompt
    assert build_open_prompt(asked) == with_options.replace("Options: (A) ice (B) water\n", "")


@pytest.mark.parametrize("case", GOLDEN["tokenize"], ids=lambda c: c["prompt"])
def test_reference_label_masks(case):
    got = tokenize_example(NumberTokenizer(), case["prompt"], case["answer"], case["max_words"])
    length = int(sum(case["example_mask"]))
    assert got.input_ids == case["example"][:length]
    assert [label != IGNORED for label in got.labels] == [bool(mask) for mask in case["label_mask"][:length]]
    assert [0 if label == IGNORED else label for label in got.labels] == case["labels"][:length]
    assert got.truncated == (case["prompt"] == "10 11 12 13 14 15")


SAMPLE = Problem("1", "test", "Q  here?", ("a", "b    c"), 1, hint="H", caption="cap", lecture="L1\nL2", solution="S")


@pytest.mark.parametrize(
    ("format", "want"),
    [
        ("QM-A", ("Question: Q here?\nOptions: (A) a (B) b  c\nResponse:", "The answer is B.")),
        ("QCML-A", ("Question: Q here?\nContext: H\nOptions: (A) a (B) b  c\nBECAUSE: L1\\nL2\nResponse:", None)),
        ("QCLEM-A", ("Question: Q here?\nContext: H\nBECAUSE: L1\\nL2 S\nOptions: (A) a (B) b  c\nResponse:", None)),
        ("QCM-AL", (None, "The answer is B. BECAUSE: S")),
        ("QCM-AE", (None, "The answer is B. BECAUSE: L1\\nL2")),
        ("QCM-AEL", (None, "The answer is B. BECAUSE: S L1\\nL2")),
        ("QCM-LA", (None, "L1\\nL2 The answer is B.")),
        ("QCM-EA", (None, "S The answer is B.")),
        ("QCM-ELA", (None, "S L1\\nL2 The answer is B.")),
    ],
)
def test_other_formats_of_the_family(format, want):
    prompt = build_prompt(SAMPLE, format)
    for got, expected in zip((prompt.prompt, prompt.answer), want, strict=True):
        assert expected is None or got == expected


def test_every_format_builds_and_ends_where_the_answer_starts():
    for format in FORMATS:
        prompt = build_prompt(SAMPLE, format, use_caption=True)
        assert prompt.prompt.endswith("\nResponse:")
        assert prompt.scoring == prompt.prompt + ANSWER_PREFIX
    assert (build_prompt(SAMPLE).prompt + build_prompt(SAMPLE).answer).startswith(build_prompt(SAMPLE).scoring)


@pytest.mark.parametrize("format", ["", "QCM", "QCM-B", "XYZ-A", "qcm-a"])
def test_unknown_format_lists_the_known(format):
    with pytest.raises(UserError, match=r"CQM.*ALE"):
        build_prompt(SAMPLE, format)


def test_braces_in_a_question_are_text():
    assert "{Q} {0}" in build_prompt(Problem("1", "test", "{Q} {0}", ("{A}", "b"), 0)).prompt


def test_token_across_the_boundary_carries_loss():
    class Merging(NumberTokenizer):
        def encode(self, text: str, **kwargs: Any) -> list[int]:
            return super().encode(text.replace("3 4", "34"), **kwargs)

    got = tokenize_example(Merging(), "2 3", " 4 5", 10)
    assert got.input_ids == [1, 2, 34, 5, 2] and got.labels == [IGNORED, IGNORED, 34, 5, 2]


numbers = st.lists(st.integers(3, 99), min_size=1, max_size=12)


@given(numbers, numbers, st.integers(2, 30))
def test_label_invariants(prompt, answer, limit):
    got = tokenize_example(NumberTokenizer(), " ".join(map(str, prompt)), " " + " ".join(map(str, answer)), limit)
    whole = [1, *prompt, *answer, 2]
    assert got.input_ids == whole[:limit]
    assert got.labels == ([IGNORED] * (1 + len(prompt)) + [*answer, 2])[:limit]
    assert got.truncated == (len(whole) > limit)


@given(numbers, st.integers(2, 15))
def test_long_prompt_keeps_bos_and_its_end(prompt, limit):
    got = tokenize_prompt(NumberTokenizer(), " ".join(map(str, prompt)), limit)
    assert got.input_ids == [1, *prompt[-(limit - 1) :]]
    assert got.truncated == (len(prompt) > limit - 1)


def test_tokenizer_without_bos():
    tokenizer = NumberTokenizer()
    tokenizer.bos_token_id = None
    with pytest.raises(UserError, match="BOS"):
        tokenize_example(tokenizer, "3", " 4", 8)


def test_a_tokenizer_that_fails_on_one_text_is_named_with_it():
    slow = Tokenizer(BPE(vocab={"x": 0}, merges=[]))
    slow.pre_tokenizer = Split(Regex("(x+)+y"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=slow, name_or_path="folder")
    with pytest.raises(UserError, match=r"^--llm folder: its tokenizer cannot read the text 'x+ \(.*retry-limit"):
        encode(tokenizer, "x" * 60)


def test_a_tokenizer_that_fails_on_an_answer_is_named_with_it():
    with pytest.raises(UserError, match=r"its tokenizer cannot give the text of the tokens \[3, -1\]"):
        text_of(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE())), [3, -1])


def test_llama_tokens_equal_sentencepiece(real_data: Path):
    spm = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    from transformers import LlamaTokenizer

    reference = spm.SentencePieceProcessor(model_file=str(real_data / "llama" / "tokenizer.model"))
    tokenizer = LlamaTokenizer.from_pretrained(real_data / "llama")
    for item in load_scienceqa(real_data / "scienceqa150", captions=True).all_samples():
        prompt = build_prompt(item, "QCM-ALE", use_caption=True)
        got = tokenize_example(tokenizer, prompt.prompt, prompt.answer, 4096)
        assert got.input_ids == [1, *reference.encode(prompt.prompt + prompt.answer), 2]
        start = 1 + len(reference.encode(prompt.prompt))
        assert got.labels == [IGNORED] * start + got.input_ids[start:]
    assert 2 not in tokenize_prompt(tokenizer, "a </s> in the text", 64).input_ids
