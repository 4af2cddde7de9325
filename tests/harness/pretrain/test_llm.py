"""Batches and training of the tiny language model."""

from pathlib import Path

import pytest
import torch

from harness.pretrain.documents import STAGES
from harness.pretrain.llm import Batches, train_llm


@pytest.mark.parametrize("stage", range(len(STAGES)))
def test_answer_letters_are_marked(tokenizer, stage: int) -> None:
    batches = Batches(tokenizer, 0)
    for _ in range(5):
        batch = batches.next(stage)
        assert not (batch.letters_BL & ~batch.scored_BL).any()
        marked = {tokenizer.decode([i]) for i in batch.ids_BL[batch.letters_BL].tolist()}
        assert marked <= {" A", " B", " C", " D", " E"}
    assert marked


def test_overlays_take_both_ways_and_extra_positions_have_no_loss(tokenizer) -> None:
    batches = Batches(tokenizer, 0)
    ways = set()
    for _ in range(20):
        batch = batches.next(len(STAGES) - 1)
        if batch.overlay is None:
            continue
        given_BL = batch.overlay.weights_BLW.sum(-1) > 0
        own_BL = given_BL & ~given_BL[:, :1]
        assert not (own_BL & batch.scored_BL).any()
        assert batch.scored_BL[:, 0].all()
        ways |= {way for way, drawn in (("own", own_BL.any()), ("every", given_BL[:, 0].any())) if drawn}
    assert ways == {"own", "every"}


def test_batches_are_deterministic(tokenizer) -> None:
    first, second = Batches(tokenizer, 5), Batches(tokenizer, 5)
    for stage in range(len(STAGES)):
        one, other = first.next(stage), second.next(stage)
        for field in ("ids_BL", "letters_BL", "scored_BL"):
            assert torch.equal(getattr(one, field), getattr(other, field))
        assert (one.overlay is None) == (other.overlay is None)
        if one.overlay and other.overlay:
            assert torch.equal(one.overlay.weights_BLW, other.overlay.weights_BLW)


def test_training_is_deterministic(tokenizer, tmp_path: Path) -> None:
    for name in ("once", "again"):
        train_llm(tmp_path / name, tokenizer, 3, 2, lambda step, line: None)
    file = "model.safetensors"
    assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
