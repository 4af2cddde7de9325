"""Answering multiple-choice questions with a tuned model, in one of three ways.

- `letter`: the prompt ends in `The answer is`, and the likeliest next token is the letter. Each letter must be one
  token.
- `generate`: the model continues the bare prompt, and its text names the letter.
- `likelihood`: the option with the likeliest text ` X.` behind `The answer is`. Every answer can be read.

An answer that cannot be read counts as wrong.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import no_grad

from harness.config.recipe import Scoring
from harness.data.collate import Collator, Example
from harness.data.loading import Loading
from harness.data.problem import Problem
from harness.data.prompts import LETTERS, Prompt, Tokenizer, text_of
from harness.evaluation.answer_log import AnswerLog
from harness.evaluation.batches import answer_in_batches
from harness.evaluation.decode import Search, decode
from harness.evaluation.likelihood import LONGEST_OPTION, continuations, log_likelihoods
from harness.evaluation.model import EvaluatedModel, require_finite
from harness.evaluation.reading import read_answer, read_letter
from harness.evaluation.sampling import guess, sample_texts
from methods.base import Batch


@dataclass(frozen=True)
class Answering:
    """How questions are answered and answers are read; the fields of a `ChoiceRecipe` that say so.

    Attributes:
        scoring: `letter`, `generate` or `likelihood`.
        loose: read answers as the reference code does, see `harness.evaluation.reading`.
        max_new_tokens: the maximum number of tokens of a generated answer.
        sampling_seed: seed of the published sampling; None decodes greedily.
    """

    scoring: Scoring = "letter"
    loose: bool = False
    max_new_tokens: int = 64
    sampling_seed: int | None = None

    @property
    def tokens_read(self) -> int:
        """The largest number of answer tokens that the model reads behind a prompt."""
        return {"generate": self.max_new_tokens, "likelihood": LONGEST_OPTION, "letter": 0}[self.scoring]

    def asked(self, prompt: Prompt) -> str:
        """Return the text of a prompt that the model reads."""
        return prompt.prompt if self.scoring == "generate" else prompt.scoring


@no_grad()
def answer_problems(
    model: EvaluatedModel,
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    collator: Collator,
    batch_size: int,
    how: Answering,
    on_batch: Callable[[int], None] = lambda done: None,
    log: AnswerLog | None = None,
    loading: Loading | None = None,
) -> list[dict[str, Any]]:
    """Answer every problem.

    Args:
        model: the tuned model.
        problems: the problems to answer.
        prompts: one prompt per problem.
        collator: pads on the left.
        batch_size: samples per forward pass. Samples of similar length share a batch; this changes no answer.
        how: how to answer.
        on_batch: called after each batch with the number of problems done.
        log: answers of an interrupted evaluation; None keeps nothing.
        loading: how batches are prepared; None uses no workers.

    Returns:
        One row per problem, in the order of `problems`: `qid`, `prompt_sha256`, `raw` (the decoded text), `choice`
        (index, or None where the text could not be read) and `gold` (index of the right choice). Likelihoods of options
        are in `log_likelihoods`. Where sampling replaced an answer that could not be read by a random choice, `guessed`
        is true.

    Raises:
        EvaluationFailedError: logits are NaN or infinite.
    """
    model.eval()
    tokenizer = collator.tokenizer
    texts = {problem.qid: how.asked(prompt) for problem, prompt in zip(problems, prompts, strict=True)}
    answer = _answer(model, tokenizer, problems, texts, how)
    answers = answer_in_batches(
        answer,
        [Example(p.qid, texts[p.qid], None, p.image) for p in problems],
        collator,
        batch_size,
        model.backbone.device,
        on_batch,
        log or AnswerLog(),
        loading or Loading(),
    )
    return [
        {
            "qid": problem.qid,
            "prompt_sha256": hashlib.sha256(texts[problem.qid].encode()).hexdigest(),
            **_read(found, tokenizer, problem, how),
            "gold": problem.answer,
        }
        for problem, found in zip(problems, answers, strict=True)
    ]


def _answer(
    model: EvaluatedModel,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    texts: dict[str, str],
    how: Answering,
) -> Callable[[Batch, Sequence[str]], list[list[Any]]]:
    """Return what answers a batch: with tokens, or with the log-likelihood of each option."""

    def letters(batch: Batch, ids: Sequence[str]) -> list[list[int]]:
        logits_BV, _ = model.prefill(batch)
        require_finite(logits_BV, ids[0])
        tokens: list[list[int]] = logits_BV.argmax(dim=-1, keepdim=True).tolist()
        return tokens

    def generated(batch: Batch, ids: Sequence[str]) -> list[list[int]]:
        eos = int(tokenizer.eos_token_id)
        if how.sampling_seed is not None:
            return sample_texts(model, batch, ids, eos, how.max_new_tokens, how.sampling_seed)
        return [list(found.tokens) for found in decode(model, batch, eos, Search(how.max_new_tokens))]

    if how.scoring != "likelihood":
        return generated if how.scoring == "generate" else letters
    options = {p.qid: continuations(tokenizer, texts[p.qid], len(p.choices)) for p in problems}

    def likelihoods(batch: Batch, ids: Sequence[str]) -> list[list[float]]:
        return log_likelihoods(model, batch, [options[name] or [] for name in ids], ids)

    return likelihoods


def _read(found: Sequence[Any], tokenizer: Tokenizer, problem: Problem, how: Answering) -> dict[str, Any]:
    """Return what a row says about the answer itself."""
    count = len(problem.choices)
    if how.scoring == "likelihood":
        best = max(range(count), key=lambda option: found[option])
        return {"raw": LETTERS[best], "choice": best, "log_likelihoods": list(found)}
    if how.scoring == "letter":
        raw = text_of(tokenizer, found)
        return {"raw": raw, "choice": read_letter(raw, count, how.loose)}
    raw = text_of(tokenizer, found, skip_special_tokens=True).strip()
    choice = read_answer(raw, count, how.loose)
    if choice is None and how.sampling_seed is not None:
        return {"raw": raw, "choice": guess(how.sampling_seed, problem.qid, count), "guessed": True}
    return {"raw": raw, "choice": choice}


def unanswerable(tokenizer: Tokenizer, prompt: Prompt, num_choices: int, scoring: Scoring) -> str | None:
    """Return why letters cannot be scored in this way with this tokenizer; None where they can.

    Args:
        tokenizer: the language model's tokenizer.
        prompt: any prompt. What follows `The answer is` is tokenised alike behind every prompt.
        num_choices: largest number of choices of a problem.
        scoring: how answers are scored.
    """
    if scoring == "generate":
        return None
    options = continuations(tokenizer, prompt.scoring, num_choices)
    if options is None:
        return "the tokenizer merges `The answer is` with the letter that follows"
    split = [
        letter
        for index, (letter, tokens) in enumerate(zip(LETTERS, options, strict=False))
        if read_letter(text_of(tokenizer, tokens[:1]), num_choices) != index
    ]
    if scoring == "letter" and split:
        return f"{', '.join(split)} {'is' if len(split) == 1 else 'are'} not one token after `The answer is`"
    return None
