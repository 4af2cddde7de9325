"""Answering in batches: a batch that does not fit into memory is answered in parts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch

from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.loading import Loading
from harness.evaluation.answer_log import AnswerLog
from harness.evaluation.batches import answer_in_batches
from harness.processes import Processes
from methods.base import Batch
from tests.folders import byte_tokenizer

EXAMPLES = [Example(str(i), "x" * (1 + (5 * i) % 11)) for i in range(11)]


def answered(limit: int, sizes: list[int], log: AnswerLog | None = None) -> list[str]:
    """Answer every example with its own text by a model that holds `limit` samples at a time."""

    def answer(batch: Batch, ids: Sequence[str]) -> list[str]:
        sizes.append(len(ids))
        if len(ids) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        texts = [row[mask].tolist() for row, mask in zip(batch.input_ids_BL, batch.attention_mask_BL, strict=True)]
        return [f"{qid}:{len(text)}" for qid, text in zip(ids, texts, strict=True)]

    collator = Collator(byte_tokenizer(), ImagePreprocessor(8), 64, padding_side="left")
    return answer_in_batches(answer, EXAMPLES, collator, 8, "cpu", lambda done: None, log or AnswerLog(), Loading())


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_a_batch_that_is_too_large_is_answered_in_halves(limit: int) -> None:
    sizes: list[int] = []
    assert answered(limit, sizes) == answered(8, [])
    assert sizes[0] == 8 and min(sizes) <= limit


def test_one_sample_that_is_too_large_is_a_failure() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        answered(0, [])


def test_what_can_fail_in_one_process_is_done_by_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    depth, seen = [0], []

    @contextmanager
    def together(self: Processes) -> Iterator[None]:
        depth[0] += 1
        yield
        depth[0] -= 1

    class Noting(AnswerLog):
        def add(self, *args: object) -> None:
            seen.append(depth[0])

    monkeypatch.setattr(Processes, "together", together)
    assert answered(8, [], Noting()) == answered(8, [])
    assert seen == [1, 1]
