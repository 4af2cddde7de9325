"""The small world: its things, what they look like, and how scenes are drawn at random.

A scene contains one to four things, at most one per quadrant. No shape and no colour occurs twice in a scene, so that
"the star" or "the red thing" names exactly one thing. All vocabularies are sampled uniformly. So each word is as likely
to be the right option as any other, and questions cannot be answered from word frequencies.
"""

from dataclasses import dataclass, replace
from random import Random

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 30, 36),
    "orange": (244, 132, 20),
    "yellow": (248, 224, 40),
    "green": (36, 150, 56),
    "cyan": (40, 200, 220),
    "blue": (36, 68, 210),
    "purple": (122, 40, 168),
    "pink": (246, 136, 186),
}
TEXTURES = ("plain", "striped", "dotted", "checked")
OUTLINES: dict[str, tuple[int, int, int]] = {"black": (0, 0, 0), "white": (255, 255, 255), "brown": (112, 58, 16)}
SIZES: dict[str, float] = {"small": 17.0, "medium": 23.0, "large": 30.0}  # width in pixels; the image has 64
PLACES: dict[str, tuple[int, int]] = {  # centre of the quadrant, x and y in pixels
    "top-left": (16, 16),
    "top-right": (48, 16),
    "bottom-left": (16, 48),
    "bottom-right": (48, 48),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "gray": (150, 150, 150),
    "slate": (72, 80, 104),
    "mint": (168, 206, 184),
}
ATTRIBUTES = ("shape", "colour", "texture", "outline", "size", "place")
DISTINCT = ("shape", "colour", "place")  # attributes in which all things of a scene differ
NUMBERS = ("one", "two", "three", "four")
DIRECTIONS = ("left", "right", "above", "below")


@dataclass(frozen=True)
class Thing:
    """One thing of a scene. Questions ask for the first six fields; `shift` and `phase` only change the picture."""

    shape: str
    colour: str
    texture: str
    outline: str
    size: str
    place: str
    shift: tuple[float, float]  # x and y in pixels, away from the centre of the quadrant
    phase: float  # start of the texture's pattern as a part of its period, in [0, 1)

    @property
    def centre(self) -> tuple[float, float]:
        """Position of the centre, x and y in pixels from the top left."""
        x, y = PLACES[self.place]
        return x + self.shift[0], y + self.shift[1]


@dataclass(frozen=True)
class Scene:
    """One to four things on a background. The order of the things is random and has no meaning."""

    things: tuple[Thing, ...]
    background: str

    @property
    def count(self) -> str:
        """The number of things as a word."""
        return NUMBERS[len(self.things) - 1]

    def present(self, attribute: str) -> set[str]:
        """Return the values of an attribute, such as `"colour"` or `"shape"`, that occur in the scene."""
        return {getattr(thing, attribute) for thing in self.things}


VOCABULARY: dict[str, tuple[str, ...]] = {  # attribute -> its values
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "outline": tuple(OUTLINES),
    "size": tuple(SIZES),
    "place": tuple(PLACES),
    "background": tuple(BACKGROUNDS),
}


def jittered(rng: Random, thing: Thing) -> Thing:
    """Return the same thing with a newly drawn shift and phase."""
    slack = (31.0 - SIZES[thing.size]) / 2
    return replace(thing, shift=(rng.uniform(-slack, slack), rng.uniform(-slack, slack)), phase=rng.random())


def sample_scene(
    rng: Random,
    count: int,
    textures: list[str] | None = None,
    places: list[str] | None = None,
) -> Scene:
    """Draw a scene.

    Args:
        rng: draws everything that is not given.
        count: number of things, 1 to 4.
        textures: the texture of each thing; None draws them.
        places: the place of each thing; None draws them.
    """
    shapes = rng.sample(SHAPES, count)
    colours = rng.sample(list(COLOURS), count)
    places = places or rng.sample(list(PLACES), count)
    things = []
    for i in range(count):
        size = rng.choice(list(SIZES))
        thing = Thing(
            shape=shapes[i],
            colour=colours[i],
            texture=textures[i] if textures else rng.choice(TEXTURES),
            outline=rng.choice(list(OUTLINES)),
            size=size,
            place=places[i],
            shift=(0.0, 0.0),
            phase=0.0,
        )
        things.append(jittered(rng, thing))
    return Scene(tuple(things), rng.choice(list(BACKGROUNDS)))


def aligned_places(rng: Random) -> list[str]:
    """Draw two quadrants, next to each other or one above the other, in random order."""
    pairs = [
        ["top-left", "top-right"],
        ["bottom-left", "bottom-right"],
        ["top-left", "bottom-left"],
        ["top-right", "bottom-right"],
    ]
    pair = rng.choice(pairs)
    return pair if rng.random() < 0.5 else pair[::-1]


def relation(first: Thing, second: Thing) -> str | None:
    """Return where `first` is, seen from `second`: left, right, above or below; None if they are diagonal."""
    (x1, y1), (x2, y2) = PLACES[first.place], PLACES[second.place]
    if (x1 != x2) == (y1 != y2):
        return None
    if x1 != x2:
        return "left" if x1 < x2 else "right"
    return "above" if y1 < y2 else "below"
