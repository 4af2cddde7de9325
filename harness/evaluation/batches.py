"""Answering many prompts batch by batch, whatever an answer is."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from harness.data.collate import Collator, Example
from harness.data.loading import Loading, prepared_batches
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
    loading: Loading,
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
        loading: how batches are prepared; this changes no answer.

    Returns:
        One answer per example, in their order.
    """
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].prompt))
    answers: dict[int, AnswerT] = {}
    pending: list[list[int]] = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        known = log.find([examples[i].id for i in chosen])
        if known is None:
            pending.append(chosen)
        else:
            values, cut = known
            collator.cut.update(cut)
            answers.update(zip(chosen, values, strict=True))
            on_batch(len(answers))
    with prepared_batches(examples, pending, lambda chosen: Batch(**collator(chosen)), collator, loading) as prepared:
        for chosen, batch in zip(pending, prepared, strict=True):
            ids = [examples[i].id for i in chosen]
            values = answer(batch.to(device), ids)
            log.add(ids, values, sorted(collator.cut.intersection(ids)))
            answers.update(zip(chosen, values, strict=True))
            on_batch(len(answers))
    return [answers[i] for i in range(len(examples))]
