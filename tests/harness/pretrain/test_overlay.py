"""Overlays: every word is given, and only to its own document."""

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.pretrain.overlay import OWN_POSITIONS, WEIGHTS, collate_overlays, draw_overlay, overlaid


@given(st.integers(0, 2**32), st.integers(1, 20))
def test_an_overlay_gives_every_word_a_weight(seed: int, count: int) -> None:
    overlay = draw_overlay(Random(seed), range(count))
    assert len(overlay.shares) in (OWN_POSITIONS if overlay.own else (1,))
    for word in range(count):
        weights = [row[word] for row in overlay.shares if row[word]]
        assert weights
        assert all(WEIGHTS[0] <= weight <= WEIGHTS[1] for weight in weights)


@pytest.fixture(params=range(3))
def logits(llm, request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of two documents before, during and after an overlay on the second, for several start layers."""
    model, tokenizer = llm
    ids_BL = torch.randint(5, 400, (2, 12), generator=torch.Generator().manual_seed(0))
    overlay = draw_overlay(Random(1), [50, 60], own=False)
    with torch.no_grad():
        before = model(input_ids=ids_BL).logits
        with overlaid(model, collate_overlays([None, overlay], 12, tokenizer.pad_token_id, request.param, 128)):
            during = model(input_ids=ids_BL).logits
        after = model(input_ids=ids_BL).logits
    return before, during, after


def test_an_overlay_changes_its_own_document_only(logits) -> None:
    before, during, _ = logits
    torch.testing.assert_close(during[0], before[0])
    assert not torch.allclose(during[1], before[1], atol=1e-2)


def test_a_closed_overlay_leaves_the_model_as_it_was(logits) -> None:
    before, _, after = logits
    assert torch.equal(before, after)
