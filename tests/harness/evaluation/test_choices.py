"""Answering problems with the next token of a model."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.data.collate import Collator
from harness.data.images import ImagePreprocessor
from harness.data.problem import Problem
from harness.data.prompts import build_prompt
from harness.evaluation.choices import EvaluationFailedError, answer_problems
from harness.evaluation.scienceqa_metrics import score_scienceqa
from tests.backbones import tiny_backbone, tuned_model
from tests.folders import byte_tokenizer

TOKENIZER = byte_tokenizer()


def problems(count: int = 7) -> list[Problem]:
    """Questions whose lengths go up and down."""
    return [
        Problem(str(i), "test", "why" + "y" * (i * 5 % 7) + "?", ("one", "two", "three"), i % 3, hint="h" * (i % 2))
        for i in range(count)
    ]


def answer(model: Any, asked: list[Problem], batch_size: int = 3, **more: Any) -> list[dict[str, Any]]:
    prompts = [build_prompt(problem) for problem in asked]
    collator = Collator(TOKENIZER, ImagePreprocessor(32), 512, padding_side="left")
    return answer_problems(model, asked, prompts, collator, batch_size, "cpu", **more)


class Says:
    """A model whose next token is always the same, and which records the lengths of its prompts."""

    def __init__(self, text: str) -> None:
        self.logits_V = torch.zeros(len(TOKENIZER))
        self.logits_V[TOKENIZER.encode(text, add_special_tokens=False)[0]] = 1.0
        self.lengths: list[list[int]] = []

    def eval(self) -> None:
        pass

    def prefill(self, batch: Any) -> tuple[torch.Tensor, None]:
        assert batch.labels_BL is None
        assert bool(batch.attention_mask_BL[:, -1].all())
        self.lengths.append(batch.attention_mask_BL.sum(dim=1).tolist())
        return self.logits_V.expand(len(batch.input_ids_BL), -1), None


def test_rows_are_in_the_order_of_the_problems_and_say_what_was_asked() -> None:
    asked = problems()
    done: list[int] = []
    rows = answer(Says("B"), asked, on_batch=done.append)
    assert [row["qid"] for row in rows] == [problem.qid for problem in asked]
    assert [row["gold"] for row in rows] == [problem.answer for problem in asked]
    assert {(row["raw"], row["choice"]) for row in rows} == {("B", 1)}
    first = build_prompt(asked[0]).prompt + "The answer is"
    assert rows[0]["prompt_sha256"] == hashlib.sha256(first.encode()).hexdigest()
    assert done == [3, 6, 7]


def test_samples_of_like_length_share_a_batch() -> None:
    model = Says("A")
    answer(model, problems())
    flat = [length for batch in model.lengths for length in batch]
    assert flat == sorted(flat)


@pytest.mark.parametrize("text", ["x", ".", "D", "Z"])
def test_what_cannot_be_read_is_null_and_wrong(text: str) -> None:
    asked = problems()
    rows = answer(Says(text), asked)
    assert {row["choice"] for row in rows} == {None}
    scores = score_scienceqa(asked, {row["qid"]: row["choice"] for row in rows})
    average = scores.metrics["Avg"]
    assert (average.value, scores.unreadable["Avg"], average.n) == (0.0, 7, 7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_no_answer(value: float) -> None:
    model = Says("A")
    model.logits_V[5] = value
    with pytest.raises(EvaluationFailedError, match="NaN or infinite"):
        answer(model, problems())


def test_batch_size_changes_no_answer(tmp_path: Path) -> None:
    from PIL import Image

    model = tuned_model("memvp", tiny_backbone(vocab_size=300))
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "image.png")
    asked = [
        problem
        if i % 2
        else Problem(problem.qid, "test", problem.question, ("x", "y"), 0, image=tmp_path / "image.png")
        for i, problem in enumerate(problems())
    ]
    one, three, all_at_once = (answer(model, asked, size) for size in (1, 3, 7))
    assert one == three == all_at_once
    assert len({row["raw"] for row in one}) > 1  # with one answer to everything, the line above would prove nothing


def test_answers_come_from_the_model_in_evaluation_mode() -> None:
    model = tuned_model("memvp", tiny_backbone(vocab_size=300))
    first = answer(model, problems())
    model.train()
    assert answer(model, problems()) == first
    assert not model.training
