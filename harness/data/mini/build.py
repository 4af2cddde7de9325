"""Writing the mini benchmark to a folder, in ScienceQA's own format, so that one loader reads both.

Files: `problems.json`, `pid_splits.json`, `captions.json`, `images/{split}/{qid}/image.png`, `dataset.json` (name),
and `scenes.json`, `{qid: the picture in words}`, for the oracle row only: it is read as `hint + " " + scene`.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from harness.data.mini.grammar import caption, describe
from harness.data.mini.kinds import HINTED, IMAGE_HINTS, MODES, Kind, sample_kind
from harness.data.mini.questions import Draft
from harness.data.mini.render import render
from harness.data.mini.world import Scene
from harness.errors import UserError

NAME = "mini"
VERSION = 3  # raise it whenever the same seed gives other bytes: cached copies are keyed by it
SPLITS = ("train", "val", "test")
SIZES = (3600, 500, 1000)
TRIES = 200


@dataclass(frozen=True)
class Item:
    """One problem before it is written."""

    qid: str
    split: str
    kind: Kind
    draft: Draft
    grade: int
    caption: str


def sample_items(seed: int = 0, sizes: tuple[int, int, int] = SIZES) -> list[Item]:
    """Draw all problems. A (scene, question) pair occurs once in the whole set; facts, which are few, may recur."""
    rng = Random(f"mini-{VERSION}-{seed}")
    seen: set[Any] = set()
    items: list[Item] = []
    for split, size in zip(SPLITS, sizes, strict=True):
        modes = _modes(rng, size)
        for mode in modes:
            kind, draft = _fresh(rng, mode, seen)
            text = caption(draft.scene, rng, 0) if draft.scene else ""
            grade = rng.randint(*kind.grades)
            items.append(Item(str(len(items) + 1), split, kind, draft, grade, text))
    return items


def _modes(rng: Random, size: int) -> list[str]:
    """Exact shares of picture, hint and plain problems, in random order."""
    modes = [mode for mode, share in MODES.items() for _ in range(round(share * size))]
    modes = (modes + ["image"] * size)[:size]
    rng.shuffle(modes)
    return modes


def _fresh(rng: Random, mode: str, seen: set[Any]) -> tuple[Kind, Draft]:
    for _ in range(TRIES):
        kind = sample_kind(rng, mode)
        draft = kind.make(rng)
        # The picture in words, not its pixels: the same things a pixel further on are the same scene.
        key = (draft.question, describe(draft.scene) if draft.scene else draft.hint)
        if mode == "none" or key not in seen:
            seen.add(key)
            if draft.scene and rng.random() < HINTED:
                draft = replace(draft, hint=rng.choice(IMAGE_HINTS))
            return kind, draft
    raise AssertionError("the world has run out of new problems")


def record(item: Item) -> dict[str, Any]:
    """The 14 fields of a ScienceQA record."""
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


def build_mini(root: Path, seed: int = 0, sizes: tuple[int, int, int] = SIZES) -> None:
    """Write the mini benchmark into `root`; the same seed and sizes give the same bytes.

    Args:
        root: folder, made as needed; files of these names in it are replaced.
        seed: of everything that is drawn.
        sizes: problems in train, val and test.

    Raises:
        UserError: the folder cannot be written.
    """
    items = sample_items(seed, sizes)
    files: dict[str, Any] = {
        "problems.json": {item.qid: record(item) for item in items},
        "pid_splits.json": {split: [item.qid for item in items if item.split == split] for split in SPLITS},
        "captions.json": {"captions": {item.qid: item.caption for item in items if item.draft.scene}},
        "scenes.json": {item.qid: describe(item.draft.scene) for item in items if item.draft.scene},
        "dataset.json": {"name": NAME, "full": False, "seed": seed, "version": VERSION},
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
        for item in items:
            if item.draft.scene:
                folder = root / "images" / item.split / item.qid
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "image.png").write_bytes(png(item.draft.scene))
        for name, content in files.items():
            (root / name).write_text(file_text(content), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{root}: cannot write the mini data set ({error}); choose another folder") from error


def file_text(content: Any) -> str:
    """A file of the set as it is written."""
    return json.dumps(content, indent=1) + "\n"


def png(scene: Scene) -> bytes:
    """The picture of a scene as a file."""
    buffer = io.BytesIO()
    render(scene).save(buffer, format="PNG")
    return buffer.getvalue()


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/peft-vl-bench`, by default `~/.cache/peft-vl-bench`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "peft-vl-bench"


def ensure_mini(cache_dir: Path | None = None, seed: int = 0, sizes: tuple[int, int, int] = SIZES) -> Path:
    """The folder of the mini benchmark, built on first use; see `ensure_built`.

    Args:
        cache_dir: where built sets are kept; None for the user's cache folder.
        seed: as in `build_mini`.
        sizes: as in `build_mini`.

    Raises:
        UserError: the folder cannot be written.
    """
    key = [VERSION, seed, list(sizes)]
    return ensure_built(cache_dir, f"mini-v{VERSION}", key, lambda root: build_mini(root, seed, sizes))


def ensure_built(cache_dir: Path | None, name: str, key: Any, build: Callable[[Path], None]) -> Path:
    """The folder of a procedural set, built on first use.

    Built beside its place and renamed, so that a killed build leaves nothing half done, and two at once do no harm.

    Args:
        cache_dir: where built sets are kept; None for the user's cache folder.
        name: of the set.
        key: JSON value of all that the content depends on.
        build: writes the set into a folder.

    Raises:
        UserError: the folder cannot be written.
    """
    cache_dir = cache_dir or cache_folder()
    root = cache_dir / f"{name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}"
    if root.is_dir():
        return root
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=cache_dir))
    except OSError as error:
        raise UserError(f"{cache_dir}: cannot write ({error}); set XDG_CACHE_HOME to a folder that can be") from error
    try:
        build(building)
        building.chmod(0o755)
        building.rename(root)
    except OSError as error:
        if not root.is_dir():  # else another process was faster
            raise UserError(f"{root}: cannot write ({error})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root
