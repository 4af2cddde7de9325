"""How scenes are put into words: the full description, and captions in several wordings, all of them true."""

from random import Random

from harness.data.mini.world import Scene, Thing, relation


def _objects(scene: Scene) -> str:
    return f"{scene.count} object" + ("s" if len(scene.things) > 1 else "")


def describe_thing(thing: Thing) -> str:
    """Every attribute of a thing that a question may ask for."""
    return f"a {thing.size} {thing.texture} {thing.colour} {thing.shape} with {thing.outline} outline, {thing.place}."


def describe(scene: Scene) -> str:
    """The scene in words, complete: whoever reads it can answer every question about the picture.

    Two things side by side, or one above the other, add a sentence with their relation (first seen from second).
    """
    parts = [f"{_objects(scene)} on {scene.background}.", *(describe_thing(thing) for thing in scene.things)]
    where = relation_sentence(scene)
    return " ".join([*parts, where] if where else parts)


def scene_words(scene: Scene) -> tuple[str, ...]:
    """The words that `describe` uses for what there is to see, in its order."""
    seen = [(t.size, t.texture, t.colour, t.shape, t.outline, t.place) for t in scene.things]
    return (scene.count, scene.background, *(word for words in seen for word in words))


def relation_sentence(scene: Scene) -> str | None:
    """`the star is left of the circle.`, or None unless the scene holds two aligned things."""
    if len(scene.things) != 2:
        return None
    first, second = scene.things
    where = relation(first, second)
    return f"the {first.shape} is {relation_phrase(where)} the {second.shape}." if where else None


def relation_phrase(where: str) -> str:
    """`left of`, `above`."""
    return f"{where} of" if where in ("left", "right") else where


def _plain(t: Thing) -> str:
    return f"a {t.size} {t.texture} {t.colour} {t.shape} with {t.outline} outline, {t.place}"


def _placed_first(t: Thing) -> str:
    return f"{t.place} a {t.colour} {t.shape}, {t.size} and {t.texture}, {t.outline} outline"


def _outlined(t: Thing) -> str:
    return f"a {t.texture} {t.shape} in {t.colour}, {t.outline} outline, {t.size}, at the {t.place}"


def _short(t: Thing) -> str:
    return f"a {t.texture} {t.colour} {t.shape}, {t.place}"


_THING_WORDINGS = (_plain, _placed_first, _outlined, _short)


def caption(scene: Scene, rng: Random, wording: int | None = None) -> str:
    """One true caption; the wording (0 to 3) and the order of the things are drawn unless given."""
    say = _THING_WORDINGS[rng.randrange(len(_THING_WORDINGS)) if wording is None else wording]
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
    """`n` captions of a scene, the wordings taken in turn from a random start."""
    start = rng.randrange(len(_THING_WORDINGS))
    return [caption(scene, rng, (start + i) % len(_THING_WORDINGS)) for i in range(n)]
