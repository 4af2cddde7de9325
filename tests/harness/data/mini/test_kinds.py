"""The kinds of questions: exactly one option is true, and a hint names no other option."""

from random import Random

import pytest

from harness.data.mini.kinds import KINDS, MODES, Kind
from harness.data.mini.questions import Draft
from harness.data.mini.world import NUMBERS, VOCABULARY, relation


def _truth(kind: str, draft: Draft) -> set[str]:
    """Work out from the scene which options are true, without the generator."""
    scene = draft.scene
    assert scene is not None
    first = scene.things[0]
    asked = draft.question.lower().replace(",", "").rstrip("?").split()
    named = [thing for thing in scene.things if thing.shape in asked]
    if kind in ("texture", "outline", "colour", "shape", "size", "place"):
        assert len(scene.things) == 1
        return {getattr(first, kind)}
    if kind == "caption":
        return {first.texture, first.colour, first.shape}
    if kind == "count":
        return {NUMBERS[len(scene.things) - 1]}
    if kind == "count texture":
        return {NUMBERS[sum(thing.texture == asked[-1] for thing in scene.things) - 1]}
    if kind == "background":
        return {scene.background}
    if kind.endswith("appears"):
        return {getattr(thing, kind.split()[0]) for thing in scene.things}
    if kind == "colour missing":
        return set(VOCABULARY["colour"]) - {thing.colour for thing in scene.things}
    if kind.endswith(" of"):
        return {getattr(named[0], kind.split()[0])}
    assert kind == "relation"
    first, second = sorted(named, key=lambda thing: asked.index(thing.shape))
    where = relation(first, second)
    assert where is not None
    return {where}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.mode == "image"], ids=lambda kind: kind.name)
def test_exactly_the_answer_is_true(kind: Kind) -> None:
    for seed in range(60):
        draft = kind.make(Random(seed))
        true = _truth(kind.name, draft)
        assert [choice in true for choice in draft.choices] == [i == draft.answer for i in range(len(draft.choices))]
        assert len(set(draft.choices)) == len(draft.choices) >= 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.mode == "text"], ids=lambda kind: kind.name)
def test_the_hint_holds_the_answer(kind: Kind) -> None:
    for seed in range(30):
        draft = kind.make(Random(seed))
        about = draft.question.rstrip("?").split()
        words = draft.hint.rstrip(".").split()
        assert [choice for choice in draft.choices if choice in words] == [draft.choices[draft.answer]]
        assert any(word in about for word in words if word not in ("the", "has", "in"))


def test_modes_cover_everything() -> None:
    assert abs(sum(MODES.values()) - 1) < 1e-9
    assert {kind.mode for kind in KINDS} == set(MODES)
