"""The table of question kinds: each kind's name, its place in ScienceQA's categories, its share and its generator."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from harness.data.mini import knowledge as know
from harness.data.mini.questions import (
    Draft,
    appears,
    background,
    colour_missing,
    complete_caption,
    count_all,
    count_texture,
    group_fact,
    mixture,
    of_shape,
    one_thing,
    opposite,
    owned,
    owner,
    pair_fact,
    resident,
    seen_from,
    told_colour,
)


@dataclass(frozen=True)
class Kind:
    """One kind of question.

    Attributes:
        name: name of the kind.
        mode: what the answer is read from: `image`, `text` (the hint) or `none` (it must be known).
        level: what one must look at: `fine`, `part` or `whole` of the picture, or `text`.
        subject: subject in ScienceQA's record.
        topic: topic in ScienceQA's record.
        category: category in ScienceQA's record.
        skill: skill in ScienceQA's record.
        grades: lowest and highest school grade.
        share: weight of the kind among the kinds of its mode.
        make: draws a question of this kind.
    """

    name: str
    mode: str
    level: str
    subject: str
    topic: str
    category: str
    skill: str
    grades: tuple[int, int]
    share: float
    make: Callable[[Random], Draft]


def _row(
    name: str, mode: str, level: str, field: str, skill: str, grades: tuple[int, int], share: float
) -> Callable[[Callable[[Random], Draft]], Kind]:
    """Return a function that makes a Kind from its generator; `field` is a key of `FIELDS`."""
    subject, topic, category = FIELDS[field]
    return partial(Kind, name, mode, level, subject, topic, category, skill, grades, share)


FIELDS = {  # name -> subject, topic and category
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
MODES = {"image": 0.64, "text": 0.17, "none": 0.19}
"""Mode -> share of the problems."""
IMAGE_HINTS = (
    "a child drew this picture.",
    "look at the picture.",
    "the picture hangs on a wall.",
    "this is an old map.",
)
HINTED = 0.25  # share of picture questions with a hint from IMAGE_HINTS, which never gives the answer


def sample_kind(rng: Random, mode: str | None = None) -> Kind:
    """Draw a kind of question by its share; None draws the mode by its share in `MODES` first."""
    mode = mode or rng.choices(list(MODES), list(MODES.values()))[0]
    rows = [kind for kind in KINDS if kind.mode == mode]
    return rng.choices(rows, [kind.share for kind in rows])[0]
