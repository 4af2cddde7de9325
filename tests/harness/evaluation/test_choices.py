"""Answering problems with the next token of a model, with a text, and by the likelihood of the options."""

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.problem import Problem
from harness.data.prompts import LETTERS, build_prompt
from harness.evaluation.choices import Answering, answer_problems, unanswerable
from harness.evaluation.model import EvaluationFailedError
from harness.evaluation.scienceqa_metrics import score_scienceqa
from methods.base import Batch
from tests.backbones import tiny_backbone, tuned_model
from tests.folders import byte_tokenizer

TOKENIZER = byte_tokenizer()
LETTER = Answering()


def problems(count: int = 7) -> list[Problem]:
    """Questions whose lengths go up and down."""
    return [
        Problem(str(i), "test", "why" + "y" * (i * 5 % 7) + "?", ("one", "two", "three"), i % 3, hint="h" * (i % 2))
        for i in range(count)
    ]


def answer(
    model: Any, asked: list[Problem], batch_size: int = 3, how: Answering = LETTER, **more: Any
) -> list[dict[str, Any]]:
    prompts = [build_prompt(problem) for problem in asked]
    collator = Collator(TOKENIZER, ImagePreprocessor(32), 512, padding_side="left")
    return answer_problems(model, asked, prompts, collator, batch_size, how, **more)


class Says:
    """A model whose next token is always the same, and which records the lengths of its prompts."""

    backbone = SimpleNamespace(device="cpu")

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


class Knows:
    """A model that writes `The answer is X.` with the right letter, with a tokenizer of its own.

    It says so token by token, whatever else it is fed.
    """

    backbone = SimpleNamespace(device="cpu")

    def __init__(self, tokenizer: Any, asked: list[Problem], wrong: bool = False) -> None:
        self.tokenizer = tokenizer
        shift = 1 if wrong else 0
        self.answers = {
            build_prompt(p).prompt: f"The answer is {LETTERS[(p.answer + shift) % len(p.choices)]}." for p in asked
        }

    def eval(self) -> None:
        pass

    def prefill(self, batch: Any) -> tuple[torch.Tensor, Any]:
        rows = zip(batch.input_ids_BL, batch.attention_mask_BL, strict=True)
        texts = [self.tokenizer.decode(ids[mask][1:].tolist()) for ids, mask in rows]
        scripts = []
        for text in texts:
            (prompt,) = [prompt for prompt in self.answers if text.startswith(prompt)]
            said = (prompt + self.answers[prompt]).removeprefix(text)
            scripts.append(self.tokenizer.encode(said, add_special_tokens=False))
        state = Script(scripts)
        return self._logits(state), state

    def step(self, tokens_B: torch.Tensor, state: Any) -> torch.Tensor:
        assert len(tokens_B) == len(state.scripts)
        state.position += 1
        return self._logits(state)

    def _logits(self, state: Any) -> torch.Tensor:
        eos = self.tokenizer.eos_token_id
        logits = torch.zeros(len(state.scripts), len(self.tokenizer))
        for row, script in enumerate(state.scripts):
            logits[row, script[state.position] if state.position < len(script) else eos] = 9.0
        return logits


class Script:
    """The rest of what a model says to each sample of a batch."""

    def __init__(self, scripts: list[list[int]]) -> None:
        self.scripts, self.position = scripts, 0
        self.cache = SimpleNamespace(reorder_cache=lambda rows: None)

    def select(self, rows: torch.Tensor) -> None:
        self.scripts = [self.scripts[row] for row in rows.tolist()]


WAYS = [LETTER, Answering("generate"), Answering("likelihood"), Answering("generate", loose=True, sampling_seed=0)]


@pytest.mark.parametrize("letters", ["ABCDE", "B", ""])
@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.scoring)
def test_a_model_that_is_right_is_scored_as_right_or_the_scoring_is_refused(how: Answering, letters: str) -> None:
    tokenizer = byte_tokenizer(letters)
    asked = problems()
    refused = unanswerable(tokenizer, build_prompt(asked[0]), 3, how.scoring)
    if how.scoring == "letter" and letters != "ABCDE":
        split = "A, C are" if letters else "A, B, C are"
        assert refused == f"{split} not one token after `The answer is`"
        return
    assert refused is None
    collator = Collator(tokenizer, ImagePreprocessor(32), 512, padding_side="left")
    prompts = [build_prompt(problem) for problem in asked]
    for wrong in (False, True):
        model: Any = Knows(tokenizer, asked, wrong)
        rows = answer_problems(model, asked, prompts, collator, 3, how)
        assert [row["choice"] == row["gold"] for row in rows] == [not wrong] * len(asked)
        assert not any("guessed" in row for row in rows)


def test_the_likelihood_of_an_option_is_that_of_its_tokens() -> None:
    model = tuned_model("memvp", tiny_backbone(vocab_size=300))
    tokenizer = byte_tokenizer("B")  # the options have two and three tokens
    asked = problems(4)
    collator = Collator(tokenizer, ImagePreprocessor(32), 512, padding_side="left")
    prompts = [build_prompt(problem) for problem in asked]
    rows = answer_problems(model, asked, prompts, collator, 4, Answering("likelihood"))
    for problem, prompt, row in zip(asked, prompts, rows, strict=True):
        for option, found in enumerate(row["log_likelihoods"]):
            batch = Batch(**collator([Example("1", f"{prompt.scoring} {LETTERS[option]}.")]))
            own = tokenizer.encode(f" {LETTERS[option]}.", add_special_tokens=False)
            want = 0.0
            for end, token in enumerate(own, start=len(batch.input_ids_BL[0]) - len(own)):
                cut = replace(
                    batch, input_ids_BL=batch.input_ids_BL[:, :end], attention_mask_BL=batch.attention_mask_BL[:, :end]
                )
                with torch.no_grad():
                    want += float(model.prefill(cut)[0].log_softmax(dim=-1)[0, token])
            assert found == pytest.approx(want, abs=1e-4)
        assert row["choice"] == max(range(len(problem.choices)), key=row["log_likelihoods"].__getitem__)


def test_sampling_depends_on_its_seed_alone_and_guesses_what_cannot_be_read() -> None:
    model = tuned_model("memvp", tiny_backbone(vocab_size=300))
    asked = problems()
    seeds = [[answer(model, asked, size, Answering("generate", True, 6, seed)) for size in (1, 4)] for seed in range(4)]
    for alone, together in seeds:
        assert alone == together
    assert len({str(alone) for alone, _ in seeds}) == 4
    rows = seeds[0][0]
    assert all(row["guessed"] and 0 <= row["choice"] < 3 for row in rows)  # random bytes name no letter
    greedy = answer(model, asked, 4, Answering("generate", True, 6))
    assert {row["choice"] for row in greedy} == {None}
