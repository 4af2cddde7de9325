"""Answering many prompts batch by batch, whatever an answer is."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache

from harness.data.collate import Collator, Example
from harness.data.loading import Loading, prepared_batches
from harness.errors import is_out_of_memory
from harness.evaluation.answer_log import AnswerLog
from harness.processes import ALONE, Processes
from methods.base import Batch

AnswerT = TypeVar("AnswerT")
"""What the model says to one prompt. If it is logged, it is a JSON value."""


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
    """Answer every example. Processes that a launcher started together share the batches.

    Processes that run every layer together cannot share them: each of them answers all batches.

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
        One answer per example, in their order, in every process.

    Raises:
        OtherProcessFailedError: another process could not answer a batch.
    """
    processes = Processes.current()
    sharing = ALONE if processes.are_in_step else processes
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].prompt))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    answers: dict[int, AnswerT] = {}
    # The first process alone has kept answers.
    kept = processes.broadcast([log.find([examples[i].id for i in chosen]) for chosen in batches])
    for chosen, known in zip(batches, kept, strict=True):
        if known is not None:
            values, cut = known
            collator.cut.update(cut)
            answers.update(zip(chosen, values, strict=True))
            on_batch(len(answers))
    pending = [chosen for chosen, known in zip(batches, kept, strict=True) if known is None]
    own = pending[sharing.rank :: sharing.count]
    with prepared_batches(examples, own, lambda chosen: Batch(**collator(chosen)), collator, loading) as prepared:
        # In each round, every process answers one batch; in the last one, some may have none left.
        for first in range(0, len(pending), sharing.count):
            found: list[tuple[list[int], list[AnswerT], list[str]]] = []
            with sharing.together():
                if first + sharing.rank < len(pending):
                    chosen = pending[first + sharing.rank]
                    ids = [examples[i].id for i in chosen]
                    values = _within_memory(answer, next(prepared), ids, device, processes)
                    found.append((chosen, values, sorted(collator.cut.intersection(ids))))
            everywhere = list(chain.from_iterable(sharing.gather(found)))
            with processes.together():  # the disk of the first one may be full
                for chosen, values, cut in everywhere if processes.is_main else ():
                    log.add([examples[i].id for i in chosen], values, cut)
            for chosen, values, cut in everywhere:
                collator.cut.update(cut)
                answers.update(zip(chosen, values, strict=True))
            on_batch(len(answers))
    return [answers[i] for i in range(len(examples))]


def _within_memory(
    answer: Callable[[Batch, Sequence[str]], list[AnswerT]],
    batch: Batch,
    ids: Sequence[str],
    device: torch.device | str,
    processes: Processes,
) -> list[AnswerT]:
    """Answer a batch that is on the CPU, in halves if it does not fit into the device's memory.

    Processes in step do not halve it: what does not fit in one of them may fit in another.
    """
    try:
        return answer(batch.to(device), ids)
    except RuntimeError as error:
        if processes.are_in_step and is_out_of_memory(error):
            processes.leave(error)
        if len(ids) == 1 or not is_out_of_memory(error):
            raise
    # Outside the handler, so that the traceback does not keep the tensors of the failed forward pass.
    clear_device_cache(garbage_collection=True)
    size = -(-len(ids) // 2)
    parts = [(part, ids[size * index : size * (index + 1)]) for index, part in enumerate(batch.split(size))]
    return [value for part, own in parts for value in _within_memory(answer, part, own, device, processes)]
