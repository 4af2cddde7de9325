"""Answers of a tuned model to multiple-choice questions, one greedy token each.

The prompt ends in `The answer is`, so the next token is the letter; what cannot be read as one counts as wrong.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from harness.data.collate import Collator, Example
from harness.data.problem import Problem
from harness.data.prompts import Prompt
from harness.evaluation.scienceqa_metrics import parse_choice
from methods.base import Batch


class EvaluationFailedError(RuntimeError):
    """The model's logits are no numbers, so that no answer means anything."""


@torch.no_grad()
def answer_problems(
    model: Any,
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    collator: Collator,
    batch_size: int,
    device: torch.device | str,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """One row a problem: `qid`, `prompt_sha256`, `raw` text, `choice` (null: could not be read), `gold`.

    Args:
        model: a `TunedModel` (or anything with its `prefill`).
        problems: the problems, in the order of the rows.
        prompts: their prompts.
        collator: left-padding.
        batch_size: samples a forward. Samples of like length share one, which changes no answer.
        device: where the model is.
        on_batch: called with the number of problems done.

    Raises:
        EvaluationFailedError: logits are NaN or infinite.
    """
    model.eval()
    tokenizer: Any = collator.tokenizer
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
