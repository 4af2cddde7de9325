"""Answering many prompts batch by batch, whatever an answer is."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from harness.data.collate import Collator, Example
from harness.evaluation.answer_log import AnswerLog
from methods.base import Batch

AnswerT = TypeVar("AnswerT")
"""What the model says to one prompt, as a JSON value."""


def answer_in_batches(
    answer: Callable[[Batch, Sequence[str]], list[AnswerT]],
    examples: Sequence[Example],
    collator: Collator,
    batch_size: int,
    device: torch.device | str,
    on_batch: Callable[[int], None],
    log: AnswerLog,
) -> list[AnswerT]:
    """Answer every example.

    Args:
        answer: called with a batch and the ids of its samples; returns one answer per sample.
        examples: prompts without answers.
        collator: pads on the left; its `cut` names the prompts that were cut.
        batch_size: samples per forward pass. Samples of similar length share a batch; this changes no answer.
        device: the model's device.
        on_batch: called after each batch with the number of examples done.
        log: answers of an interrupted evaluation, which are not computed again; extended batch by batch.

    Returns:
        One answer per example, in their order.
    """
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].prompt))
    answers: dict[int, AnswerT] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        ids = [examples[i].id for i in chosen]
        known = log.find(ids)
        if known is None:
            batch = Batch(**collator([examples[i] for i in chosen])).to(device)
            values = answer(batch, ids)
            log.add(ids, values, sorted(collator.cut.intersection(ids)))
        else:
            values, cut = known
            collator.cut.update(cut)
        answers.update(zip(chosen, values, strict=True))
        on_batch(len(answers))
    return [answers[i] for i in range(len(examples))]
