"""Captions that state one fact about a picture, such as `a red star.` or `a star at the top-left.`

A whole caption names every attribute of every thing, so CLIP can match it to its picture by the easiest attributes and
never look at the others. Among captions of one fact only that fact decides. Each fact comes with the captions of all
its other values: these are the captions that a picture is compared with.

No fact names a texture, as captions of photographs rarely do. Some whole captions do name it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from harness.data.mini.world import NUMBERS, VOCABULARY, Scene, Thing

_VALUES = {**VOCABULARY, "count": NUMBERS}


@dataclass(frozen=True)
class Fact:
    """One or two attributes that a short caption names.

    Attributes:
        names: the attributes.
        captions: one caption for each combination of their values, the last attribute changing fastest.
        of_thing: whether these are attributes of a thing; otherwise they are attributes of the scene.
    """

    names: tuple[str, ...]
    captions: tuple[str, ...]
    of_thing: bool

    def index(self, subject: Thing | Scene) -> int:
        """Return which of the captions is true of a thing or, if the fact is not of a thing, of a scene."""
        index = 0
        for name in self.names:
            index = index * len(_VALUES[name]) + _VALUES[name].index(getattr(subject, name))
        return index

    def true_of(self, scene: Scene) -> set[int]:
        """Return which of the captions are true of a scene; at least one is."""
        return {self.index(thing) for thing in scene.things} if self.of_thing else {self.index(scene)}


def _fact(sentence: str, *names: str, of_thing: bool = True) -> Fact:
    """Return the fact whose captions are `sentence` with the values of the attributes filled in."""
    combinations = product(*(_VALUES[name] for name in names))
    return Fact(names, tuple(sentence.format(*values) for values in combinations), of_thing)


FACTS: Sequence[Fact] = (
    _fact("a {}.", "shape"),
    _fact("a {} object.", "colour"),
    _fact("an object at the {}.", "place"),
    _fact("an object with {} outline.", "outline"),
    _fact("a {} object.", "size"),
    _fact("a {} {}.", "colour", "shape"),
    _fact("a {} at the {}.", "shape", "place"),
    _fact("a {} object at the {}.", "colour", "place"),
    _fact("a {} background.", "background", of_thing=False),
    Fact(("count",), ("one object.", *(f"{number} objects." for number in NUMBERS[1:])), of_thing=False),
)
