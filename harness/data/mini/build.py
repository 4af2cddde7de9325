"""Draw the problems of the mini benchmark and write them in ScienceQA's official layout, which one loader reads.

The files are `problems.json`, `pid_splits.json`, `captions.json`, `images/{split}/{qid}/image.png`, `dataset.json`
with the name, and `scenes.json`, which maps a problem id to a description of its picture in words. Only the oracle
baseline reads `scenes.json`; it appends the description to the hint.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from harness.data.mini.cache import Sizes, ensure_built
from harness.data.mini.grammar import caption, describe
from harness.data.mini.kinds import HINTED, IMAGE_HINTS, MODES, Kind, sample_kind
from harness.data.mini.questions import Draft
from harness.data.mini.render import png

NAME = "mini"
VERSION = 4  # increase it whenever the same seed gives other bytes; cached copies are found by it
SPLITS = ("train", "val", "test")
SIZES = (3600, 1000, 4000)
"""Problems in train, val and test."""
MAX_DRAWS = 200
"""How many times a problem is drawn to find one that is new. If none is new, the build fails."""


@dataclass(frozen=True)
class Item:
    """One problem of the mini benchmark before it is written to a file."""

    qid: str
    split: str
    kind: Kind
    draft: Draft
    grade: int
    caption: str


def sample_items(seed: int = 0, sizes: Sizes = SIZES) -> list[Item]:
    """Draw all problems of the mini benchmark.

    A pair of scene and question occurs once in the whole set. Facts may recur, because there are few of them.

    Args:
        seed: seed of everything that is drawn.
        sizes: number of problems in train, val and test.
    """
    rng = Random(f"mini-{VERSION}-{seed}")
    seen: set[tuple[str, str]] = set()
    items: list[Item] = []
    for split, size in zip(SPLITS, sizes, strict=True):
        for mode in _modes(rng, size):
            kind, draft = _new_problem(rng, mode, seen)
            text = caption(draft.scene, rng, 0) if draft.scene else ""
            grade = rng.randint(*kind.grades)
            items.append(Item(str(len(items) + 1), split, kind, draft, grade, text))
    return items


def _modes(rng: Random, size: int) -> list[str]:
    """Return `size` modes in random order, each mode in the share that `MODES` gives it."""
    modes = [mode for mode, share in MODES.items() for _ in range(round(share * size))]
    modes = (modes + ["image"] * size)[:size]
    rng.shuffle(modes)
    return modes


def _new_problem(rng: Random, mode: str, seen: set[tuple[str, str]]) -> tuple[Kind, Draft]:
    """Draw a problem of one mode that is not in `seen`, and add it there."""
    for _ in range(MAX_DRAWS):
        kind = sample_kind(rng, mode)
        draft = kind.make(rng)
        # Scenes are compared in words: the same things shifted by a pixel are the same scene.
        key = (draft.question, describe(draft.scene) if draft.scene else draft.hint)
        if mode == "none" or key not in seen:
            seen.add(key)
            if draft.scene and rng.random() < HINTED:
                draft = replace(draft, hint=rng.choice(IMAGE_HINTS))
            return kind, draft
    raise AssertionError("no new problem was found: the sizes are too large for the vocabulary")


def record(item: Item) -> dict[str, object]:
    """Return the 14 fields of a problem's ScienceQA record."""
    kind, draft = item.kind, item.draft
    return {
        "question": draft.question,
        "choices": list(draft.choices),
        "answer": draft.answer,
        "hint": draft.hint,
        "image": "image.png" if draft.scene else None,
        "task": "closed choice",
        "grade": f"grade{item.grade}",
        "subject": kind.subject,
        "topic": kind.topic,
        "category": kind.category,
        "skill": kind.skill,
        "lecture": LECTURES[kind.level],
        "solution": draft.solution,
        "split": item.split,
    }


LECTURES = {
    "fine": "look closely: the texture and the outline are small things.",
    "part": "look at the object: its shape, its colour, its size and its place.",
    "whole": "look at the whole picture: count the objects and see where they stand.",
    "text": "read the question and all options first.",
}


def build_mini(root: Path, seed: int = 0, sizes: Sizes = SIZES) -> None:
    """Write the mini benchmark to `root`; the same seed and sizes give the same bytes.

    Args:
        root: folder to write to, created if necessary; files with the same names are replaced.
        seed: seed of everything that is drawn.
        sizes: number of problems in train, val and test.

    Raises:
        OSError: the folder cannot be written.
    """
    items = sample_items(seed, sizes)
    files: dict[str, object] = {
        "problems.json": {item.qid: record(item) for item in items},
        "pid_splits.json": {split: [item.qid for item in items if item.split == split] for split in SPLITS},
        "captions.json": {"captions": {item.qid: item.caption for item in items if item.draft.scene}},
        "scenes.json": {item.qid: describe(item.draft.scene) for item in items if item.draft.scene},
        "dataset.json": {"name": NAME, "full": False, "seed": seed, "version": VERSION},
    }
    root.mkdir(parents=True, exist_ok=True)
    for item in items:
        if item.draft.scene:
            folder = root / "images" / item.split / item.qid
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "image.png").write_bytes(png(item.draft.scene))
    for name, content in files.items():
        (root / name).write_text(file_text(content), encoding="utf-8")


def file_text(content: object) -> str:
    """Return a JSON value as the text of a file in the generated sets."""
    return json.dumps(content, indent=1) + "\n"


def ensure_mini(cache_dir: Path | None = None, seed: int = 0, sizes: Sizes = SIZES) -> Path:
    """Return the folder of the mini benchmark, which is built on first use.

    Args:
        cache_dir: where generated sets are kept; None takes the cache folder of the user.
        seed: as in `build_mini`.
        sizes: as in `build_mini`.

    Raises:
        UserError: the folder cannot be written.
    """
    return ensure_built(cache_dir, NAME, VERSION, seed, sizes, build_mini)
