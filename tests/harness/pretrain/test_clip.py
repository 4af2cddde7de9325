"""Training of the tiny CLIP."""

from pathlib import Path
from random import Random

import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.data.mini.grammar import describe
from harness.data.mini.world import ATTRIBUTES, DISTINCT, PLACES, sample_scene
from harness.pretrain.clip import (
    COUNTS,
    FAMILY,
    PATCH,
    SIZE,
    centre_patch,
    embed_texts,
    family,
    pair_batch,
    tokenize_captions,
    train_clip,
)
from harness.pretrain.facts import FACTS

seeds = st.integers(0, 2**32)


@given(seeds)
def test_the_scenes_of_a_family_all_differ(seed: int) -> None:
    scenes = family(Random(seed))
    assert len(scenes) == FAMILY
    assert len({describe(scene) for scene in scenes}) == FAMILY


@given(seeds)
def test_a_family_differs_in_one_attribute_of_one_thing(seed: int) -> None:
    first, *others = family(Random(seed))
    for other in others:
        pairs = zip(first.things, other.things, strict=True)
        changed = [(a, b, name) for a, b in pairs for name in ATTRIBUTES if getattr(a, name) != getattr(b, name)]
        assert len(changed) == 1
        assert other.background == first.background


@given(seeds)
def test_the_things_of_a_scene_in_a_family_can_be_told_apart(seed: int) -> None:
    for scene in family(Random(seed))[1:]:
        for name in DISTINCT:
            assert len(scene.present(name)) == len(scene.things)


@given(seeds)
def test_a_family_has_no_two_textures_of_a_thing(seed: int) -> None:
    first, *others = family(Random(seed))
    for other in others:
        assert [thing.texture for thing in other.things] == [thing.texture for thing in first.things]


@given(seeds)
def test_the_centre_patch_is_in_the_quadrant_of_the_thing(seed: int) -> None:
    (thing,) = sample_scene(Random(seed), 1).things
    row, column = divmod(centre_patch(thing), SIZE // PATCH)
    x, y = PLACES[thing.place]
    assert (column * PATCH < SIZE / 2, row * PATCH < SIZE / 2) == (x < SIZE / 2, y < SIZE / 2)


def test_texts_have_the_embeddings_that_open_clip_gives_them(clip, tokenizer) -> None:
    ids_BT = tokenize_captions(tokenizer, [caption for fact in FACTS for caption in fact.captions][:40])
    with torch.no_grad():
        torch.testing.assert_close(embed_texts(clip, ids_BT), clip.encode_text(ids_BT, normalize=True))


def test_a_batch_says_which_captions_are_true(tokenizer) -> None:
    batch = pair_batch(Random(0), tokenizer, COUNTS)
    torch.testing.assert_close(batch.true_BF.sum(-1), torch.full((len(batch.images_BCHW),), float(len(FACTS))))
    true_of_things_BF = batch.true_BF.split([len(fact.captions) for fact in FACTS], dim=1)
    of_thing = [true_BF for true_BF, fact in zip(true_of_things_BF, FACTS, strict=True) if fact.of_thing]
    for column, true_BF in enumerate(of_thing):
        assert (true_BF[batch.rows_N, batch.right_NK[:, column]] > 0).all()


def test_training_is_deterministic(tokenizer, tmp_path: Path) -> None:
    for name in ("once", "again"):
        train_clip(tmp_path / name, tokenizer, 3, 1, lambda step, line: None)
    file = "open_clip_model.safetensors"
    assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
