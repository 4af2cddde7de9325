"""The training documents of the tiny language model: facts, captions and questions of the small world.

Every question is written as the benchmark's own prompt, with the description of the scene in its context. Three
measures make the model use answer letters early:

- A curriculum: documents first ask for the letters of options, then for a named word, then for attributes of one thing,
  and in the end for everything.
- Dense supervision: one document asks many questions about one scene.
- Repeated sequences: some documents repeat a row of random words, so that the model learns to copy from its context.

Some kinds of questions can be answered from the words of the scene in any order. For a part of these the words are
given as an overlay (`harness.pretrain.overlay`) and not in the text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from harness.data.mini import knowledge
from harness.data.mini.grammar import caption, describe, scene_words
from harness.data.mini.kinds import HINTED, IMAGE_HINTS, KINDS, sample_kind
from harness.data.mini.questions import (
    Draft,
    SceneMaker,
    draw_story,
    of_shape,
    one_thing,
    owned,
    owner,
    resident,
    told_colour,
)
from harness.data.mini.world import ATTRIBUTES, NUMBERS, VOCABULARY, Scene, sample_scene
from harness.data.problem import Problem
from harness.data.prompts import build_prompt

_ABOUT_ONE: dict[str, SceneMaker] = {name: one_thing(name) for name in ATTRIBUTES}
_ABOUT_ONE_OF_SEVERAL: list[SceneMaker] = [
    of_shape("colour", "what is the colour of the {}?"),
    of_shape("texture", "which texture does the {} have?"),
    of_shape("place", "where on the map is the {}?"),
]
_WORDS = tuple(
    sorted(
        {word for words in VOCABULARY.values() for word in words}
        | {*knowledge.NAMES, *knowledge.GOODS, *knowledge.COUNTRIES, *NUMBERS}
        | {word for pair in knowledge.OPPOSITES for word in pair}
    )
)


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum.

    Attributes:
        shares: sort of document (a key of `_SORTS`) -> its share.
        overlaid: share of the scenes that are given as an overlay, among those that can be.
        words: maximum number of attributes in an overlay of one thing; None often gives the whole scene.
        start_layers: an overlay at every position is added before one of this many first layers.
        faint: whether overlays may be faint and noisy, see `harness.pretrain.overlay.draw_overlay`.
        mastered: accuracy on answer letters, as a running mean, at which the next stage begins.
    """

    shares: Mapping[str, float]
    overlaid: float = 0.0
    words: int | None = None
    start_layers: int = 1
    faint: bool = False
    mastered: float = 0.92


_ONE_THING = {"one": 0.45, "dense one": 0.25, "find": 0.20, "label": 0.10}
_OVERLAY = {"one": 0.35, "dense one": 0.55, "find": 0.10}
_ALL = {
    "one": 0.12, "dense one": 0.08, "dense many": 0.08, "image": 0.30, "text": 0.05, "dense text": 0.04, "fact": 0.22,
    "find": 0.02, "label": 0.01, "repeat": 0.01, "statement": 0.04, "caption": 0.03,
}  # fmt: skip
STAGES = (
    Stage({"label": 1.0}),
    Stage({"find": 0.7, "label": 0.3}),
    Stage(_ONE_THING),
    Stage(_OVERLAY, overlaid=0.8, words=1, mastered=0.90),
    Stage(_OVERLAY, overlaid=0.8, words=3, mastered=0.85),
    Stage(_OVERLAY, overlaid=0.8, start_layers=2, mastered=0.85),
    Stage(_ALL, overlaid=0.55, start_layers=3, faint=True),
)
WHOLE_SCENE = 0.5
"""Share of the overlays of one thing that give the whole scene, where a stage does not limit their words."""
OVERLAYABLE = {
    "texture", "outline", "colour", "shape", "size", "place", "caption", "count", "background", "colour appears",
    "shape appears",
}  # fmt: skip
"""Kinds of picture questions that can be answered from the words of the scene in any order."""


@dataclass(frozen=True)
class Document:
    """A training text without BOS and EOS, and the words that are given as an overlay."""

    text: str
    overlay: tuple[str, ...] = ()


def document(rng: Random, stage: int) -> Document:
    """Draw one training document of a stage, which is an index of `STAGES`."""
    shares = STAGES[stage].shares
    made = _SORTS[rng.choices(list(shares), list(shares.values()))[0]](rng, STAGES[stage])
    return Document(made) if isinstance(made, str) else made


def _scene_as_text_or_overlay(
    rng: Random, scene: Scene | None, stage: Stage, names: Sequence[str] = ()
) -> tuple[str, tuple[str, ...]]:
    """Return a scene as text and as the words of an overlay; one of the two is empty.

    Args:
        rng: decides between text and overlay, and how many words an overlay has.
        scene: the scene; None gives neither text nor overlay.
        stage: says how often a scene becomes an overlay.
        names: attributes of the only thing in the scene. Many overlays consist of these alone, because fewer words are
            easier to tell apart in a sum.
    """
    if scene is None:
        return "", ()
    if rng.random() >= stage.overlaid:
        return describe(scene), ()
    if names and (stage.words is not None or rng.random() >= WHOLE_SCENE):
        return "", tuple(dict.fromkeys(getattr(scene.things[0], name) for name in names))
    return "", scene_words(scene)


def ask(draft: Draft, hint: str, source: str = "QCM") -> str:
    """Return prompt and answer of a draft as the benchmark writes them; `source` is the input part of the format."""
    problem = Problem("0", "train", draft.question, draft.choices, draft.answer, hint=hint)
    prompt = build_prompt(problem, f"{source}-A")
    return prompt.prompt + prompt.answer


def _options(rng: Random, right: str, others: list[str]) -> tuple[tuple[str, ...], int]:
    """Shuffle the options, and return them and the index of the right one."""
    choices = [right, *others]
    rng.shuffle(choices)
    return tuple(choices), choices.index(right)


def _find(rng: Random, stage: Stage) -> str:
    """Ask three to five times which option is the word that the question or the context names."""
    lines = []
    for _ in range(rng.randint(3, 5)):
        right, *others = rng.sample(_WORDS, rng.choice((2, 3, 3, 4, 4)))
        draft = Draft(f"Which word is {right}?", *_options(rng, right, others))
        if rng.random() < 0.5:
            draft = Draft("Which word is here?", draft.choices, draft.answer, f"the word {right} is here.")
        lines.append(ask(draft, draft.hint))
    return "\n".join(lines)


def _repeat(rng: Random, stage: Stage) -> str:
    """Write a row of random words two or three times."""
    row = rng.choices(_WORDS, k=rng.randint(6, 16))
    return "".join(f" {word}" for word in row * rng.choice((2, 3)))


def _label(rng: Random, stage: Stage) -> str:
    """Write four lists of options, each followed by three of its words with their letters."""
    text = ""
    for _ in range(4):
        labelled = list(zip("ABCD", rng.sample(_WORDS, 4), strict=True))
        text += "".join(f" ({letter}) {word}" for letter, word in labelled)
        text += "".join(f" {word} is {letter}" for letter, word in rng.sample(labelled, 3))
    return text


def _dense_one(rng: Random, stage: Stage) -> Document:
    """Describe one thing and ask for several of its attributes.

    Each is asked for once, because a second question could be answered from the first answer.
    """
    scene = sample_scene(rng, 1)
    names = rng.sample(ATTRIBUTES, rng.randint(1, stage.words or len(ATTRIBUTES)))
    text, overlay = _scene_as_text_or_overlay(rng, scene, stage, names)
    lines = [f"Context: {text or 'N/A'}", *(ask(_ABOUT_ONE[name](rng, scene), "", "QM") for name in names)]
    return Document("\n".join(lines), overlay)


def _dense_many(rng: Random, stage: Stage) -> str:
    """Describe two or three things and ask several questions about them."""
    scene = sample_scene(rng, rng.choice((2, 2, 3)))
    makers = rng.choices(_ABOUT_ONE_OF_SEVERAL, k=rng.randint(3, 5))
    return "\n".join([f"Context: {describe(scene)}", *(ask(maker(rng, scene), "", "QM") for maker in makers)])


def _one(rng: Random, stage: Stage) -> Document:
    """Ask for one attribute of one thing."""
    name = rng.choice(ATTRIBUTES)
    draft = _ABOUT_ONE[name](rng)
    names = [name, *rng.sample(ATTRIBUTES, rng.randint(0, (stage.words or len(ATTRIBUTES)) - 1))]
    text, overlay = _scene_as_text_or_overlay(rng, draft.scene, stage, names)
    return Document(ask(draft, text), overlay)


_IMAGE_KINDS = [kind for kind in KINDS if kind.mode == "image"]


def _image(rng: Random, stage: Stage) -> Document:
    """Ask a picture question of any kind.

    60 % are drawn evenly from the kinds, because the rare kinds are the hard ones; the others by the kinds' shares.
    """
    kind = rng.choice(_IMAGE_KINDS) if rng.random() < 0.6 else sample_kind(rng, "image")
    draft = kind.make(rng)
    hint = rng.choice(IMAGE_HINTS) if rng.random() < HINTED else ""
    stage = stage if kind.name in OVERLAYABLE else replace(stage, overlaid=0.0)
    text, overlay = _scene_as_text_or_overlay(rng, draft.scene, stage)
    return Document(ask(draft, f"{hint} {text}".strip()), overlay)


def _text(rng: Random, stage: Stage) -> str:
    """Ask a question whose answer is in the hint."""
    draft = sample_kind(rng, "text").make(rng)
    return ask(draft, draft.hint)


def _dense_text(rng: Random, stage: Stage) -> str:
    """Tell a story and ask two to four questions about it, each of another part."""
    story = draw_story(rng)
    makers = rng.sample((owner, owned, resident, told_colour), rng.randint(2, 4))
    return "\n".join([f"Context: {story.hint()}", *(ask(maker(rng, story), "", "QM") for maker in makers)])


def _fact(rng: Random, stage: Stage) -> str:
    """Ask one to four questions without a context, one after the other."""
    return "\n".join(ask(sample_kind(rng, "none").make(rng), "") for _ in range(rng.randint(1, 4)))


_STATEMENTS = knowledge.statements()


def _statement(rng: Random, stage: Stage) -> str:
    """State four facts of the small world."""
    return " ".join(rng.sample(_STATEMENTS, 4))


def _caption(rng: Random, stage: Stage) -> str:
    """Write one caption of a new scene."""
    return caption(sample_scene(rng, rng.choice((1, 1, 2, 3))), rng)


_SORTS: dict[str, Callable[[Random, Stage], str | Document]] = {
    "find": _find,
    "repeat": _repeat,
    "label": _label,
    "dense one": _dense_one,
    "dense many": _dense_many,
    "one": _one,
    "image": _image,
    "text": _text,
    "dense text": _dense_text,
    "fact": _fact,
    "statement": _statement,
    "caption": _caption,
}
