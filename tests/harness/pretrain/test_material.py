"""What the tiny backbone learns from: overlays tell every word, families differ in one word."""

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.data.mini.grammar import describe, scene_words
from harness.data.mini.world import ATTRIBUTES, DISTINCT, sample_scene
from harness.pretrain import check
from harness.pretrain.clip import FAMILY, family
from harness.pretrain.documents import STAGES, document
from harness.pretrain.llm import Batches
from harness.pretrain.overlay import OWN_POSITIONS, WEIGHTS, collate_overlays, draw_overlay, overlaid
from tests.harness.pretrain.test_tiny_backbone import llm

seeds = st.integers(0, 2**32)


@given(seeds, st.integers(1, 4))
def test_scene_words_are_those_of_the_description(seed: int, count: int) -> None:
    scene = sample_scene(Random(seed), count)
    told = describe(scene).replace(",", "").replace(".", "").split()
    assert set(scene_words(scene)) <= set(told)
    for thing in scene.things:
        assert {getattr(thing, name) for name in ATTRIBUTES} <= set(scene_words(scene))


@given(seeds, st.integers(1, 20))
def test_an_overlay_tells_every_word(seed: int, count: int) -> None:
    overlay = draw_overlay(Random(seed), range(count))
    assert len(overlay.shares) in (OWN_POSITIONS if overlay.own else (1,))
    for word in range(count):
        weights = [row[word] for row in overlay.shares if row[word]]
        assert weights
        assert all(WEIGHTS[0] <= weight <= WEIGHTS[1] for weight in weights)


@pytest.mark.parametrize("start_layer", range(3))
def test_an_overlay_changes_its_own_document_only(start_layer: int) -> None:
    model, tokenizer = llm()
    ids_BL = torch.randint(5, 400, (2, 12), generator=torch.Generator().manual_seed(0))
    overlay = draw_overlay(Random(1), [50, 60], own=False)
    with torch.no_grad():
        plain = model(input_ids=ids_BL).logits
        with overlaid(model, collate_overlays([None, overlay], 12, tokenizer.pad_token_id, start_layer, 128)):
            told = model(input_ids=ids_BL).logits
        after = model(input_ids=ids_BL).logits
    assert torch.equal(plain, after)
    torch.testing.assert_close(told[0], plain[0])
    assert not torch.allclose(told[1], plain[1], atol=1e-2)


def test_a_batch_gives_own_columns_behind_bos_and_no_loss_on_them() -> None:
    tokenizer = llm()[1]
    batches = Batches(tokenizer, 0)
    ways = set()
    for _ in range(20):
        batch = batches.next(len(STAGES) - 1)
        if batch.overlay is None:
            continue
        told_BL = batch.overlay.weights_BLW.sum(-1) > 0
        own_BL = told_BL & ~told_BL[:, :1]
        assert not (own_BL & batch.scored_BL).any()
        assert batch.scored_BL[:, 0].all()
        ways |= {way for way, drawn in (("own", own_BL.any()), ("every", told_BL[:, 0].any())) if drawn}
    assert ways == {"own", "every"}


@given(seeds)
def test_what_an_overlay_tells_is_not_in_the_text(seed: int) -> None:
    rng = Random(seed)
    drawn = document(rng, len(STAGES) - 1)
    if drawn.overlay:
        assert "outline," not in drawn.text and " objects on " not in drawn.text


@given(seeds)
def test_families_differ_in_one_word_of_one_thing(seed: int) -> None:
    first, *others = family(Random(seed))
    assert len(others) == FAMILY - 1
    assert len({describe(scene) for scene in (first, *others)}) == FAMILY
    for other in others:
        pairs = zip(first.things, other.things, strict=True)
        changed = [(a, b, name) for a, b in pairs for name in ATTRIBUTES if getattr(a, name) != getattr(b, name)]
        assert len(changed) == 1
        assert other.background == first.background
        for name in DISTINCT:
            assert len(other.present(name)) == len(other.things)


def test_the_shipped_model_reads_overlays() -> None:
    model, tokenizer = llm()
    items = check.test_items("image", 200)
    for own in (True, False):
        assert check.overlay_accuracy(model, tokenizer, items, own) >= 0.60
