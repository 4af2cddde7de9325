"""Put a scene into words: one complete description, and true captions in several wordings."""

from collections.abc import Callable
from random import Random

from harness.data.mini.world import Scene, Thing, relation


def _objects(scene: Scene) -> str:
    """Return `one object`, `two objects`, and so on."""
    return f"{scene.count} object" + ("s" if len(scene.things) > 1 else "")


def describe_thing(thing: Thing) -> str:
    """Return a sentence with every attribute of a thing that a question may ask for."""
    return f"a {thing.size} {thing.texture} {thing.colour} {thing.shape} with {thing.outline} outline, {thing.place}."


def describe(scene: Scene) -> str:
    """Return the complete description of a scene, from which every question about the picture can be answered.

    If the scene has two things, next to each other or one above the other, the last sentence says where the first is,
    seen from the second.
    """
    parts = [f"{_objects(scene)} on {scene.background}.", *(describe_thing(thing) for thing in scene.things)]
    where = relation_sentence(scene)
    return " ".join([*parts, where] if where else parts)


def scene_words(scene: Scene) -> tuple[str, ...]:
    """Return the words of a description that name something in the picture, in the order of `describe`."""
    seen = [(t.size, t.texture, t.colour, t.shape, t.outline, t.place) for t in scene.things]
    return (scene.count, scene.background, *(word for words in seen for word in words))


def relation_sentence(scene: Scene) -> str | None:
    """Return a sentence such as `the star is left of the circle.`, or None unless the scene has two aligned things."""
    if len(scene.things) != 2:
        return None
    first, second = scene.things
    where = relation(first, second)
    return f"the {first.shape} is {relation_phrase(where)} the {second.shape}." if where else None


def relation_phrase(where: str) -> str:
    """Return a direction as it is written in a sentence, such as `left of` or `above`."""
    return f"{where} of" if where in ("left", "right") else where


def _plain(t: Thing) -> str:
    return f"a {t.size} {t.texture} {t.colour} {t.shape} with {t.outline} outline, {t.place}"


def _placed_first(t: Thing) -> str:
    return f"{t.place} a {t.colour} {t.shape}, {t.size} and {t.texture}, {t.outline} outline"


def _outlined(t: Thing) -> str:
    return f"a {t.texture} {t.shape} in {t.colour}, {t.outline} outline, {t.size}, at the {t.place}"


def _short(t: Thing) -> str:
    return f"a {t.texture} {t.colour} {t.shape}, {t.place}"


def _untextured(t: Thing) -> str:
    return f"a {t.size} {t.colour} {t.shape} with {t.outline} outline, {t.place}"


def _placed_first_untextured(t: Thing) -> str:
    return f"{t.place} a {t.colour} {t.shape}, {t.size}, {t.outline} outline"


_THING_WORDINGS = (_plain, _placed_first, _outlined, _short)
_UNTEXTURED = (_untextured, _placed_first_untextured)


def caption(scene: Scene, rng: Random, wording: int | None = None) -> str:
    """Return one true caption of a scene; the order of the things is drawn.

    Args:
        scene: the scene.
        rng: draws the order, the opening and, if it is not given, the wording.
        wording: which of the four wordings of a thing is used, 0 to 3; None draws it.
    """
    return _caption(scene, rng, _THING_WORDINGS[rng.randrange(len(_THING_WORDINGS)) if wording is None else wording])


def caption_without_texture(scene: Scene, rng: Random) -> str:
    """Return a true caption that names every attribute but textures; no data set contains such captions."""
    return _caption(scene, rng, rng.choice(_UNTEXTURED))


def _caption(scene: Scene, rng: Random, say: Callable[[Thing], str]) -> str:
    """Return a caption of a scene that says each thing with `say`."""
    things = rng.sample(scene.things, len(scene.things))
    body = " and ".join(say(thing) for thing in things)
    lead = rng.choice(
        (
            f"{_objects(scene)} on {scene.background}:",
            f"on a {scene.background} background,",
            f"a picture of {_objects(scene)}, {scene.background} behind:",
            f"{scene.background} background with",
        )
    )
    return f"{lead} {body}."


def captions(scene: Scene, rng: Random, n: int) -> list[str]:
    """Return `n` captions of a scene, whose wordings take turns from a random start."""
    start = rng.randrange(len(_THING_WORDINGS))
    return [caption(scene, rng, (start + i) % len(_THING_WORDINGS)) for i in range(n)]
