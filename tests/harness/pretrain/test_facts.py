"""Captions of one fact."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.mini.world import TEXTURES, sample_scene
from harness.pretrain.facts import FACTS, Fact

facts = pytest.mark.parametrize("fact", FACTS, ids=lambda fact: " ".join(fact.names))


@facts
@given(seed=st.integers(0, 2**32), count=st.integers(1, 4))
def test_exactly_the_captions_with_the_values_of_a_subject_are_true(fact: Fact, seed: int, count: int) -> None:
    scene = sample_scene(Random(seed), count)
    subjects = scene.things if fact.of_thing else (scene,)
    values = [{getattr(subject, name) for name in fact.names} for subject in subjects]
    words = [set(caption.rstrip(".").split()) for caption in fact.captions]
    said = {index for index, caption in enumerate(words) if any(value <= caption for value in values)}
    assert fact.true_of(scene) == said


@facts
def test_captions_all_differ_and_name_no_texture(fact: Fact) -> None:
    assert len(set(fact.captions)) == len(fact.captions)
    assert not any(texture in caption for caption in fact.captions for texture in TEXTURES)


@facts
def test_every_word_is_one_token(fact: Fact, tokenizer) -> None:
    for caption in fact.captions:
        assert len(tokenizer.encode(caption, add_special_tokens=False)) == len(caption.split()) + 1
