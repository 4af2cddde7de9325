"""Scenes in words: complete descriptions and true captions."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.mini.grammar import captions, describe, scene_words
from harness.data.mini.world import ATTRIBUTES, VOCABULARY, sample_scene


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 4))
def test_a_description_names_every_attribute(seed: int, count: int) -> None:
    scene = sample_scene(Random(seed), count)
    words = describe(scene)
    for thing in scene.things:
        assert f"{thing.size} {thing.texture} {thing.colour} {thing.shape} with {thing.outline} outline" in words
        assert thing.place in words


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 4))
def test_captions_differ_and_name_only_what_is_there(seed: int, count: int) -> None:
    rng = Random(seed)
    scene = sample_scene(rng, count)
    texts = captions(scene, rng, 5)
    absent = set(VOCABULARY["colour"]) - scene.present("colour")
    assert len(set(texts)) >= 4
    for text in texts:
        assert all(thing.shape in text and thing.colour in text for thing in scene.things)
        assert not absent & set(text.replace(",", " ").replace(".", " ").split())


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_scene_words_are_those_of_the_description(seed: int, count: int) -> None:
    scene = sample_scene(Random(seed), count)
    described = describe(scene).replace(",", "").replace(".", "").split()
    assert set(scene_words(scene)) <= set(described)
    for thing in scene.things:
        assert {getattr(thing, name) for name in ATTRIBUTES} <= set(scene_words(scene))
