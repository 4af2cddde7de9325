"""The generators of questions: each draws a scene or a hint, and a question about it.

A generator draws the right answer uniformly from its vocabulary, and the wrong options uniformly from the rest. So the
options alone do not reveal the answer; one must look at the picture.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    """A question with shuffled options; `answer` is an index into `choices`, `scene` is None without a picture."""

    question: str
    choices: tuple[str, ...]
    answer: int
    hint: str = ""
    scene: Scene | None = None
    solution: str = ""


class SceneMaker(Protocol):
    """A function that draws a question about the given scene, or about a new one if none is given."""

    def __call__(self, rng: Random, scene: Scene | None = None) -> Draft:
        """Draw a question."""
        ...


class StoryMaker(Protocol):
    """A function that draws a question about the given story, or about a new one if none is given."""

    def __call__(self, rng: Random, story: "Story | None" = None) -> Draft:
        """Draw a question."""
        ...


def _draft(
    rng: Random,
    question: str,
    right: str,
    wrong: Iterable[str],
    options: int,
    scene: Scene | None = None,
    hint: str = "",
) -> Draft:
    """Return a question whose options are `right` and `options - 1` words drawn from `wrong`, in random order."""
    choices = [right, *rng.sample(sorted(set(wrong) - {right}), options - 1)]
    rng.shuffle(choices)
    evidence = "the picture shows" if scene else "the text says" if hint else "it is known"
    question = question[0].upper() + question[1:]
    return Draft(question, tuple(choices), choices.index(right), hint, scene, f"{evidence}: {right}.")


# ---- questions about a picture of one thing


ASKING: dict[str, tuple[str, ...]] = {
    "texture": ("which texture does the object have?", "what is the texture of the object?"),
    "outline": ("what is the outline of the object?", "which outline does the object have?"),
    "colour": ("what is the colour of the object?", "which colour does the object have?"),
    "shape": ("what is the shape of the object?", "which shape does the object have?"),
    "size": ("what is the size of the object?", "which size does the object have?"),
    "place": ("where on the map is the object?", "which part of the map holds the object?"),
}


def one_thing(attribute: str) -> SceneMaker:
    """Return a generator of questions about an attribute of the only thing in the picture."""

    def make(rng: Random, scene: Scene | None = None) -> Draft:
        scene = scene or sample_scene(rng, 1)
        words = VOCABULARY[attribute]
        right = getattr(scene.things[0], attribute)
        return _draft(rng, rng.choice(ASKING[attribute]), right, words, min(4, len(words)), scene)

    return make


def complete_caption(rng: Random) -> Draft:
    """Ask for the word that completes a caption of one thing."""
    scene = sample_scene(rng, 1)
    thing = scene.things[0]
    attribute = rng.choice(("texture", "colour", "shape"))
    gap = f"a __ {thing.shape}" if attribute != "shape" else f"a {thing.size} __"
    question = f"which word completes the caption? {gap}"
    return _draft(rng, question, getattr(thing, attribute), VOCABULARY[attribute], 4, scene)


# ---- questions about the whole picture


def count_all(rng: Random) -> Draft:
    """Ask how many things there are."""
    scene = sample_scene(rng, rng.randint(1, 4))
    return _draft(rng, "how many objects are there?", scene.count, NUMBERS, 4, scene)


def count_texture(rng: Random) -> Draft:
    """Ask how many things have one texture; the answer is drawn first, so that all numbers are equally likely."""
    number = rng.randint(1, 3)
    texture = rng.choice(TEXTURES)
    others = [t for t in TEXTURES if t != texture]
    total = rng.randint(number, 4)
    textures = [texture] * number + [rng.choice(others) for _ in range(total - number)]
    rng.shuffle(textures)
    scene = sample_scene(rng, total, textures=textures)
    return _draft(rng, f"how many objects are {texture}?", NUMBERS[number - 1], NUMBERS[:3], 3, scene)


def background(rng: Random) -> Draft:
    """Ask for the background."""
    scene = sample_scene(rng, rng.randint(1, 4))
    return _draft(rng, "what is the background?", scene.background, VOCABULARY["background"], 3, scene)


def appears(attribute: str) -> Callable[[Random], Draft]:
    """Return a generator of questions of which one option is in the picture and the others are not."""

    def make(rng: Random) -> Draft:
        scene = sample_scene(rng, rng.randint(1, 3))
        here = scene.present(attribute)
        wrong = set(VOCABULARY[attribute]) - here
        right = rng.choice(sorted(here))
        return _draft(rng, f"which {attribute} appears in the picture?", right, wrong, min(4, len(wrong) + 1), scene)

    return make


def colour_missing(rng: Random) -> Draft:
    """Ask for the one colour among the options that is not in the picture."""
    scene = sample_scene(rng, 2)
    here = scene.present("colour")
    right = rng.choice(sorted(set(VOCABULARY["colour"]) - here))
    return _draft(rng, "which colour is not in the picture?", right, here, 3, scene)


# ---- questions about one of several things in a picture


def of_shape(attribute: str, question: str) -> SceneMaker:
    """Return a generator of questions about an attribute of one of two or three things, which is named by its shape."""

    def make(rng: Random, scene: Scene | None = None) -> Draft:
        scene = scene or sample_scene(rng, rng.choice((2, 2, 3)))
        thing = rng.choice(scene.things)
        words = VOCABULARY[attribute]
        return _draft(rng, question.format(thing.shape), getattr(thing, attribute), words, min(4, len(words)), scene)

    return make


def seen_from(rng: Random) -> Draft:
    """Ask where one of two things is, seen from the other."""
    scene = sample_scene(rng, 2, places=aligned_places(rng))
    first, second = scene.things
    question = f"on the map, where is the {first.shape}, seen from the {second.shape}?"
    where = relation(first, second)
    assert where is not None and relation_sentence(scene) is not None
    return _draft(rng, question, relation_phrase(where).split()[0], DIRECTIONS, 4, scene)


# ---- questions without a picture, whose answer is in the hint


@dataclass(frozen=True)
class Story:
    """What a hint tells about one person: `Anna lives in Norland and has the red cup.`"""

    name: str
    country: str
    colour: str
    good: str

    def hint(self) -> str:
        """Return the story as a sentence."""
        return f"{self.name} lives in {self.country} and has the {self.colour} {self.good}."


STORY_WORDS: Mapping[str, Sequence[str]] = {
    "name": know.NAMES,
    "country": know.COUNTRIES,
    "colour": VOCABULARY["colour"],
    "good": know.GOODS,
}
"""Part of a story -> the words it is drawn from."""


def told(part: str, question: str) -> StoryMaker:
    """Return a generator of questions about one part of a story; only the right option is a word of the hint.

    Args:
        part: the part that is asked for, a key of `STORY_WORDS`.
        question: the question, in which `{name}` and `{good}` stand for the words of the story.
    """

    def make(rng: Random, story: Story | None = None) -> Draft:
        story = story or draw_story(rng)
        asked = question.format(name=story.name, good=story.good)
        return _draft(rng, asked, getattr(story, part), STORY_WORDS[part], 4, hint=story.hint())

    return make


def draw_story(rng: Random) -> Story:
    """Draw a story."""
    return Story(**{part: rng.choice(words) for part, words in STORY_WORDS.items()})


owner = told("name", "who has the {good}?")
owned = told("good", "what does {name} have?")
resident = told("country", "where does {name} live?")
told_colour = told("colour", "what is the colour of the {good}?")


# ---- questions without picture or hint, whose answer must be known


def pair_fact(pairs: Sequence[tuple[str, str]], question: str, options: int = 4) -> Callable[[Random], Draft]:
    """Return a generator of questions that name the first word of a pair and ask for the second.

    Args:
        pairs: the pairs of words; the wrong options are second words of other pairs.
        question: the question, with `{}` in place of the first word.
        options: number of options.
    """

    def make(rng: Random) -> Draft:
        first, right = rng.choice(pairs)
        return _draft(rng, question.format(first), right, {b for _, b in pairs}, options)

    return make


def group_fact(groups: Mapping[str, tuple[str, ...]], question: str, options: int) -> Callable[[Random], Draft]:
    """Return a generator of questions about the group of a member; `groups` is group -> members. See `pair_fact`."""
    pairs = [(member, name) for name, members in groups.items() for member in members]
    return pair_fact(pairs, question, options)


def opposite(rng: Random) -> Draft:
    """Ask for the opposite of a word."""
    both = [*know.OPPOSITES, *((b, a) for a, b in know.OPPOSITES)]
    return pair_fact(both, "what is the opposite of {}?")(rng)


def mixture(rng: Random) -> Draft:
    """Ask for the colour that two paints give."""
    a, b, right = rng.choice(know.MIXTURES)
    if rng.random() < 0.5:
        a, b = b, a
    return _draft(rng, f"which colour do {a} and {b} paint give?", right, {c for *_, c in know.MIXTURES}, 4)
