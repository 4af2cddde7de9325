"""Answering multiple-choice questions with a tuned model, one greedy token per question.

The prompt ends in `The answer is`, so the next token is the letter of the choice. A token that is not the letter of
a choice counts as wrong.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from harness.data.collate import Collator, Example
from harness.data.loading import Loading
from harness.data.problem import Problem
from harness.data.prompts import Prompt
from harness.evaluation.answer_log import AnswerLog
from harness.evaluation.batches import answer_in_batches
from harness.evaluation.model import EvaluatedModel
from harness.evaluation.scienceqa_metrics import parse_choice
from methods.base import Batch


class EvaluationFailedError(RuntimeError):
    """The model's logits are NaN or infinite, so its answers mean nothing."""


@torch.no_grad()
def answer_problems(
    model: EvaluatedModel,
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    collator: Collator,
    batch_size: int,
    device: torch.device | str,
    on_batch: Callable[[int], None] = lambda done: None,
    log: AnswerLog | None = None,
    loading: Loading | None = None,
) -> list[dict[str, Any]]:
    """Answer every problem with the likeliest next token.

    Args:
        model: the tuned model.
        problems: the problems to answer.
        prompts: one prompt per problem.
        collator: pads on the left.
        batch_size: samples per forward pass. Samples of similar length share a batch; this changes no answer.
        device: the model's device.
        on_batch: called after each batch with the number of problems done.
        log: answers of an interrupted evaluation; None keeps nothing.
        loading: how batches are prepared; None uses no workers.

    Returns:
        One row per problem, in the order of `problems`: `qid`, `prompt_sha256`, `raw` (the decoded token), `choice`
        (index, or None where the token could not be read) and `gold` (index of the right choice).

    Raises:
        EvaluationFailedError: logits are NaN or infinite.
    """
    model.eval()
    tokenizer = collator.tokenizer

    def likeliest(batch: Batch, ids: Sequence[str]) -> list[int]:
        logits_BV, _ = model.prefill(batch)
        if not bool(torch.isfinite(logits_BV).all()):
            raise EvaluationFailedError(f"logits are NaN or infinite in the batch of problem {ids[0]}")
        tokens: list[int] = logits_BV.argmax(dim=-1).tolist()
        return tokens

    examples = [Example(p.qid, q.scoring, None, p.image) for p, q in zip(problems, prompts, strict=True)]
    tokens = answer_in_batches(
        likeliest, examples, collator, batch_size, device, on_batch, log or AnswerLog(), loading or Loading()
    )
    rows = []
    for problem, prompt, token in zip(problems, prompts, tokens, strict=True):
        raw = tokenizer.decode([token])
        rows.append(
            {
                "qid": problem.qid,
                "prompt_sha256": hashlib.sha256(prompt.scoring.encode()).hexdigest(),
                "raw": raw,
                "choice": parse_choice(raw, len(problem.choices)),
                "gold": problem.answer,
            }
        )
    return rows
