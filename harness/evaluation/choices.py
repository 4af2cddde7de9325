"""Answering multiple-choice questions with a tuned model, one greedy token per question.

The prompt ends in `The answer is`, so the next token is the letter of the choice. A token that is not the letter of
a choice counts as wrong.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from harness.data.collate import Collator, Example
from harness.data.problem import Problem
from harness.data.prompts import Prompt
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

    Returns:
        One row per problem, in the order of `problems`: `qid`, `prompt_sha256`, `raw` (the decoded token), `choice`
        (index, or None where the token could not be read) and `gold` (index of the right choice).

    Raises:
        EvaluationFailedError: logits are NaN or infinite.
    """
    model.eval()
    tokenizer = collator.tokenizer
    order = sorted(range(len(problems)), key=lambda i: len(prompts[i].scoring))
    rows: dict[int, dict[str, Any]] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        examples = [Example(problems[i].qid, prompts[i].scoring, None, problems[i].image) for i in chosen]
        logits_BV, _ = model.prefill(Batch(**collator(examples)).to(device))
        if not bool(torch.isfinite(logits_BV).all()):
            raise EvaluationFailedError(f"logits are NaN or infinite in the batch of problem {problems[chosen[0]].qid}")
        for i, token in zip(chosen, logits_BV.argmax(dim=-1).tolist(), strict=True):
            raw = tokenizer.decode([token])
            rows[i] = {
                "qid": problems[i].qid,
                "prompt_sha256": hashlib.sha256(prompts[i].scoring.encode()).hexdigest(),
                "raw": raw,
                "choice": parse_choice(raw, len(problems[i].choices)),
                "gold": problems[i].answer,
            }
        on_batch(len(rows))
    return [rows[i] for i in range(len(problems))]
