"""The procedural caption set: pictures of the mini world with five true captions each, in Karpathy's form.

Layout as COCO's: `dataset_coco.json` beside `train2014/` (training) and `val2014/` (val and test), so that
`harness.data.coco` reads it. No scene occurs twice in the whole set.
"""

import json
from pathlib import Path
from random import Random
from typing import Any

from harness.data.mini.build import SPLITS, TRIES, ensure_built, png
from harness.data.mini.grammar import captions, describe_thing
from harness.data.mini.world import Scene, sample_scene
from harness.errors import UserError

CAPTIONS_VERSION = 1  # raise it whenever the same seed gives other bytes: cached copies are keyed by it
CAPTION_SIZES = (2000, 300, 500)
PER_IMAGE = 5
COUNTS = (1, 2, 2, 3)
"""Things in a picture, drawn uniformly; few, since each adds a dozen words to a caption."""
FOLDERS = {"train": "train2014", "val": "val2014", "test": "val2014"}


def sample_captions(
    seed: int = 0, sizes: tuple[int, int, int] = CAPTION_SIZES
) -> list[tuple[str, Scene, tuple[str, ...]]]:
    """Split, scene and captions of every picture, split by split; the captions of a picture all differ."""
    rng = Random(f"mini-captions-{CAPTIONS_VERSION}-{seed}")
    seen: set[Any] = set()
    drawn = []
    for split, size in zip(SPLITS, sizes, strict=True):
        for _ in range(size):
            scene = _fresh(rng, seen)
            drawn.append((split, scene, _worded(rng, scene)))
    return drawn


def _fresh(rng: Random, seen: set[Any]) -> Scene:
    for _ in range(TRIES):
        scene = sample_scene(rng, rng.choice(COUNTS))
        # In words, not pixels, and the order of the things carries no meaning.
        key = (scene.background, frozenset(map(describe_thing, scene.things)))
        if key not in seen:
            seen.add(key)
            return scene
    raise AssertionError("the world has run out of new scenes")


def _worded(rng: Random, scene: Scene) -> tuple[str, ...]:
    for _ in range(TRIES):
        texts = captions(scene, rng, PER_IMAGE)
        if len(set(texts)) == PER_IMAGE:
            return tuple(texts)
    raise AssertionError("the grammar has run out of wordings")


def build_captions(root: Path, seed: int = 0, sizes: tuple[int, int, int] = CAPTION_SIZES) -> None:
    """Write the caption set into `root`; the same seed and sizes give the same bytes.

    Args:
        root: folder, made as needed; files of these names in it are replaced.
        seed: of everything that is drawn.
        sizes: pictures in train, val and test.

    Raises:
        UserError: the folder cannot be written.
    """
    images = []
    try:
        for folder in FOLDERS.values():
            (root / folder).mkdir(parents=True, exist_ok=True)
        for number, (split, scene, texts) in enumerate(sample_captions(seed, sizes), 1):
            record = _record(number, split, texts)
            (root / record["filepath"] / record["filename"]).write_bytes(png(scene))
            images.append(record)
        dataset = {"dataset": "mini-captions", "version": CAPTIONS_VERSION, "seed": seed, "images": images}
        (root / "dataset_coco.json").write_text(json.dumps(dataset, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{root}: cannot write the caption set ({error}); choose another folder") from error


def _record(number: int, split: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """One image as Karpathy's file has it; numbers as in `cocoid` start at 1."""
    first = (number - 1) * PER_IMAGE
    sentences = [
        {"raw": text, "tokens": text.replace(",", "").replace(":", "").rstrip(".").split(), "imgid": number - 1,
         "sentid": first + index}
        for index, text in enumerate(texts)
    ]  # fmt: skip
    return {
        "filepath": FOLDERS[split],
        "filename": f"{number:012d}.png",
        "split": split,
        "cocoid": number,
        "imgid": number - 1,
        "sentids": [sentence["sentid"] for sentence in sentences],
        "sentences": sentences,
    }


def ensure_captions(cache_dir: Path | None = None, seed: int = 0, sizes: tuple[int, int, int] = CAPTION_SIZES) -> Path:
    """The folder of the caption set, built on first use; see `harness.data.mini.build.ensure_built`."""
    key = [CAPTIONS_VERSION, seed, list(sizes)]
    name = f"mini-captions-v{CAPTIONS_VERSION}"
    return ensure_built(cache_dir, name, key, lambda root: build_captions(root, seed, sizes))
