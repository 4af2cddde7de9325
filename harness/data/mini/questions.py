"""The table of question kinds: what is asked, where it belongs, how often, and the generator that draws one.

A generator draws the scene and the question together, the right answer uniformly over its vocabulary and the wrong
options uniformly over the rest. So an option says nothing about being right until one looks at the picture.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from harness.data.mini import knowledge as know
from harness.data.mini.grammar import relation_phrase, relation_sentence
from harness.data.mini.world import (
    DIRECTIONS,
    NUMBERS,
    TEXTURES,
    VOCABULARY,
    Scene,
    aligned_places,
    relation,
    sample_scene,
)


@dataclass(frozen=True)
class Draft:
    """A question with its options shuffled; `answer` indexes `choices`; `scene` is None for text questions."""

    question: str
    choices: tuple[str, ...]
    answer: int
    hint: str = ""
    scene: Scene | None = None
    solution: str = ""


class SceneMaker(Protocol):
    """Draws a question about a given scene, or about a scene of its own."""

    def __call__(self, rng: Random, scene: Scene | None = None) -> Draft: ...


@dataclass(frozen=True)
class Kind:
    """One row of the table. `share` is the weight within its mode (with a picture, with a hint, with neither)."""

    name: str
    mode: str  # image | text | none
    level: str  # fine | part | whole | text
    subject: str
    topic: str
    category: str
    skill: str
    grades: tuple[int, int]
    share: float
    make: Callable[[Random], Draft]


def _draft(
    rng: Random,
    question: str,
    right: str,
    wrong: Iterable[str],
    options: int,
    scene: Scene | None = None,
    hint: str = "",
) -> Draft:
    """Shuffle `right` among `options - 1` words drawn from `wrong`."""
    choices = [right, *rng.sample(sorted(set(wrong) - {right}), options - 1)]
    rng.shuffle(choices)
    told = "the picture shows" if scene else "the text says" if hint else "it is known"
    question = question[0].upper() + question[1:]
    return Draft(question, tuple(choices), choices.index(right), hint, scene, f"{told}: {right}.")


# ---- with a picture: one thing


ASKING: dict[str, tuple[str, ...]] = {
    "texture": ("which texture does the object have?", "what is the texture of the object?"),
    "outline": ("what is the outline of the object?", "which outline does the object have?"),
    "colour": ("what is the colour of the object?", "which colour does the object have?"),
    "shape": ("what is the shape of the object?", "which shape does the object have?"),
    "size": ("what is the size of the object?", "which size does the object have?"),
    "place": ("where on the map is the object?", "which part of the map holds the object?"),
}


def one_thing(attribute: str) -> SceneMaker:
    """Ask for an attribute of the only thing in the picture (of `scene`, or of a new one)."""

    def make(rng: Random, scene: Scene | None = None) -> Draft:
        scene = scene or sample_scene(rng, 1)
        words = VOCABULARY[attribute]
        right = getattr(scene.things[0], attribute)
        return _draft(rng, rng.choice(ASKING[attribute]), right, words, min(4, len(words)), scene)

    return make


def complete_caption(rng: Random) -> Draft:
    """Fill the gap in a caption of one thing."""
    scene = sample_scene(rng, 1)
    thing = scene.things[0]
    attribute = rng.choice(("texture", "colour", "shape"))
    gap = f"a __ {thing.shape}" if attribute != "shape" else f"a {thing.size} __"
    question = f"which word completes the caption? {gap}"
    return _draft(rng, question, getattr(thing, attribute), VOCABULARY[attribute], 4, scene)


# ---- with a picture: the whole scene


def count_all(rng: Random) -> Draft:
    scene = sample_scene(rng, rng.randint(1, 4))
    return _draft(rng, "how many objects are there?", scene.count, NUMBERS, 4, scene)


def count_texture(rng: Random) -> Draft:
    """Count the things of one texture; the right number is drawn first, so all numbers are equally likely."""
    number = rng.randint(1, 3)
    texture = rng.choice(TEXTURES)
    others = [t for t in TEXTURES if t != texture]
    total = rng.randint(number, 4)
    textures = [texture] * number + [rng.choice(others) for _ in range(total - number)]
    rng.shuffle(textures)
    scene = sample_scene(rng, total, textures=textures)
    return _draft(rng, f"how many objects are {texture}?", NUMBERS[number - 1], NUMBERS[:3], 3, scene)


def background(rng: Random) -> Draft:
    scene = sample_scene(rng, rng.randint(1, 4))
    return _draft(rng, "what is the background?", scene.background, VOCABULARY["background"], 3, scene)


def appears(attribute: str) -> Callable[[Random], Draft]:
    """One option is in the picture, the others are not."""

    def make(rng: Random) -> Draft:
        scene = sample_scene(rng, rng.randint(1, 3))
        here = scene.present(attribute)
        wrong = set(VOCABULARY[attribute]) - here
        right = rng.choice(sorted(here))
        return _draft(rng, f"which {attribute} appears in the picture?", right, wrong, min(4, len(wrong) + 1), scene)

    return make


def colour_missing(rng: Random) -> Draft:
    scene = sample_scene(rng, 2)
    here = scene.present("colour")
    right = rng.choice(sorted(set(VOCABULARY["colour"]) - here))
    return _draft(rng, "which colour is not in the picture?", right, here, 3, scene)


# ---- with a picture: binding and relations


def of_shape(attribute: str, question: str) -> SceneMaker:
    """Ask for an attribute of one of two or three things (of `scene`, or of a new one), named by its shape."""

    def make(rng: Random, scene: Scene | None = None) -> Draft:
        scene = scene or sample_scene(rng, rng.choice((2, 2, 3)))
        thing = rng.choice(scene.things)
        words = VOCABULARY[attribute]
        return _draft(rng, question.format(thing.shape), getattr(thing, attribute), words, min(4, len(words)), scene)

    return make


def seen_from(rng: Random) -> Draft:
    """Where one of two things is, seen from the other."""
    scene = sample_scene(rng, 2, places=aligned_places(rng))
    first, second = scene.things
    question = f"on the map, where is the {first.shape}, seen from the {second.shape}?"
    where = relation(first, second)
    assert where is not None and relation_sentence(scene) is not None
    return _draft(rng, question, relation_phrase(where).split()[0], DIRECTIONS, 4, scene)


# ---- text only, the answer in the hint


def owner(rng: Random) -> Draft:
    """Who has what, told in two or three sentences."""
    names, goods = rng.sample(know.NAMES, 3), rng.sample(know.GOODS, 3)
    hint = " ".join(f"{name} has the {good}." for name, good in zip(names, goods, strict=True))
    i = rng.randrange(3)
    return _draft(rng, f"who has the {goods[i]}?", names[i], names, 3, hint=hint)


def owned(rng: Random) -> Draft:
    names, goods = rng.sample(know.NAMES, 3), rng.sample(know.GOODS, 3)
    hint = " ".join(f"{name} has the {good}." for name, good in zip(names, goods, strict=True))
    i = rng.randrange(3)
    return _draft(rng, f"what does {names[i]} have?", goods[i], goods, 3, hint=hint)


def resident(rng: Random) -> Draft:
    names, lands = rng.sample(know.NAMES, 3), rng.sample(know.COUNTRIES, 3)
    hint = " ".join(f"{name} lives in {land}." for name, land in zip(names, lands, strict=True))
    i = rng.randrange(3)
    return _draft(rng, f"where does {names[i]} live?", lands[i], lands, 3, hint=hint)


def told_colour(rng: Random) -> Draft:
    goods, colours = rng.sample(know.GOODS, 3), rng.sample(VOCABULARY["colour"], 3)
    hint = " ".join(f"the {colour} {good} is here." for colour, good in zip(colours, goods, strict=True))
    i = rng.randrange(3)
    return _draft(rng, f"what is the colour of the {goods[i]}?", colours[i], colours, 3, hint=hint)


# ---- text only, known by heart


def pair_fact(pairs: Sequence[tuple[str, str]], question: str, options: int = 4) -> Callable[[Random], Draft]:
    """Ask for the second word of a pair; the wrong options are other second words."""

    def make(rng: Random) -> Draft:
        first, right = rng.choice(pairs)
        return _draft(rng, question.format(first), right, {b for _, b in pairs}, options)

    return make


def group_fact(groups: dict[str, tuple[str, ...]], question: str, options: int) -> Callable[[Random], Draft]:
    """Ask for the group of a member."""
    pairs = [(member, name) for name, members in groups.items() for member in members]
    return pair_fact(pairs, question, options)


def opposite(rng: Random) -> Draft:
    both = [*know.OPPOSITES, *((b, a) for a, b in know.OPPOSITES)]
    return pair_fact(both, "what is the opposite of {}?")(rng)


def mixture(rng: Random) -> Draft:
    a, b, right = rng.choice(know.MIXTURES)
    if rng.random() < 0.5:
        a, b = b, a
    return _draft(rng, f"which colour do {a} and {b} paint give?", right, {c for *_, c in know.MIXTURES}, 4)


def _row(
    name: str, mode: str, level: str, field: str, skill: str, grades: tuple[int, int], share: float
) -> Callable[[Callable[[Random], Draft]], Kind]:
    subject, topic, category = FIELDS[field]
    return partial(Kind, name, mode, level, subject, topic, category, skill, grades, share)


FIELDS = {
    "materials": ("natural science", "physics", "Materials"),
    "light": ("natural science", "physics", "Light and colour"),
    "biology": ("natural science", "biology", "Classification"),
    "geometry": ("natural science", "science-and-engineering-practices", "Figures"),
    "maps": ("social science", "geography", "Maps"),
    "world": ("social science", "geography", "Countries"),
    "people": ("social science", "civics", "Communities"),
    "words": ("language science", "vocabulary", "Word meaning"),
    "forms": ("language science", "grammar", "Word forms"),
    "reading": ("language science", "reading-comprehension", "Read for details"),
    "captions": ("language science", "writing-strategies", "Captions"),
}
KINDS: tuple[Kind, ...] = (
    _row("texture", "image", "fine", "materials", "Name a texture", (1, 8), 13)(one_thing("texture")),
    _row("outline", "image", "fine", "materials", "Name an outline", (3, 10), 8)(one_thing("outline")),
    _row("colour", "image", "part", "light", "Name a colour", (1, 7), 11)(one_thing("colour")),
    _row("shape", "image", "part", "geometry", "Name a shape", (1, 7), 10)(one_thing("shape")),
    _row("size", "image", "part", "geometry", "Compare sizes", (2, 8), 5)(one_thing("size")),
    _row("place", "image", "part", "maps", "Read a map: position", (1, 12), 13)(one_thing("place")),
    _row("caption", "image", "part", "captions", "Complete a caption", (1, 12), 13)(complete_caption),
    _row("count", "image", "whole", "geometry", "Count objects", (1, 9), 9)(count_all),
    _row("background", "image", "whole", "light", "Name a background", (2, 10), 3)(background),
    _row("colour appears", "image", "whole", "light", "Find a colour", (3, 12), 4)(appears("colour")),
    _row("shape appears", "image", "whole", "geometry", "Find a shape", (3, 12), 3)(appears("shape")),
    _row("colour missing", "image", "whole", "light", "Find a missing colour", (5, 12), 2)(colour_missing),
    _row("count texture", "image", "whole", "materials", "Count by texture", (6, 12), 2)(count_texture),
    _row("colour of", "image", "part", "captions", "Describe one of several", (6, 12), 3)(
        of_shape("colour", "what is the colour of the {}?")
    ),
    _row("texture of", "image", "fine", "materials", "Texture of one of several", (7, 12), 2)(
        of_shape("texture", "which texture does the {} have?")
    ),
    _row("place of", "image", "part", "maps", "Find a landmark", (6, 12), 3)(
        of_shape("place", "where on the map is the {}?")
    ),
    _row("relation", "image", "whole", "maps", "Read a map: direction", (5, 12), 3)(seen_from),
    _row("owner", "text", "text", "reading", "Read who has what", (2, 10), 3)(owner),
    _row("owned", "text", "text", "reading", "Read what someone has", (2, 10), 2)(owned),
    _row("resident", "text", "text", "people", "Read where people live", (2, 12), 4)(resident),
    _row("told colour", "text", "text", "light", "Read a description", (2, 12), 4)(told_colour),
    _row("opposite", "none", "text", "words", "Opposites", (1, 6), 4)(opposite),
    _row("plural", "none", "text", "forms", "Plurals", (1, 5), 2)(
        pair_fact(know.PLURALS, "what is the plural of {}?")
    ),
    _row("past", "none", "text", "forms", "Past tense", (2, 6), 2)(
        pair_fact(know.PAST, "what is the past tense of {}?")
    ),
    _row("word class", "none", "text", "forms", "Word classes", (4, 9), 2)(
        group_fact(know.WORD_CLASSES, "which kind of word is {}?", 3)
    ),
    _row("capital", "none", "text", "world", "Capitals", (5, 12), 5)(
        pair_fact(know.CAPITALS, "what is the capital of {}?")
    ),
    _row("region", "none", "text", "world", "Regions", (5, 12), 3)(
        group_fact(know.CONTINENTS, "where does {} lie?", 4)
    ),
    _row("animal group", "none", "text", "biology", "Groups of animals", (3, 9), 4)(
        group_fact(know.ANIMALS, "which group is the {} in?", 4)
    ),
    _row("sides", "none", "text", "geometry", "Sides of figures", (2, 7), 2)(
        pair_fact(know.SIDES, "how many sides does the {} have?")
    ),
    _row("mixture", "none", "text", "light", "Mix colours", (4, 9), 2)(mixture),
)  # fmt: skip
MODES = {"image": 0.54, "text": 0.21, "none": 0.25}
IMAGE_HINTS = (
    "a child drew this picture.",
    "look at the picture.",
    "the picture hangs on a wall.",
    "this is an old map.",
)
HINTED = 0.25  # share of picture questions that carry a hint (which never tells the answer)


def sample_kind(rng: Random, mode: str | None = None) -> Kind:
    """Draw a kind by mode and share."""
    mode = mode or rng.choices(list(MODES), list(MODES.values()))[0]
    rows = [kind for kind in KINDS if kind.mode == mode]
    return rng.choices(rows, [kind.share for kind in rows])[0]
