"""The generated caption set: pictures of the small world with five true captions each, in Karpathy's form.

The layout is that of COCO, which `harness.data.coco` reads: `dataset_coco.json` next to the image folders `train2014/`
(train) and `val2014/` (val and test). No scene occurs twice in the whole set.
"""

from pathlib import Path
from random import Random
from typing import Any

from harness.data.mini.build import MAX_DRAWS, SPLITS, file_text
from harness.data.mini.cache import Sizes, ensure_built
from harness.data.mini.grammar import captions, describe_thing
from harness.data.mini.render import png
from harness.data.mini.world import Scene, sample_scene

CAPTIONS_NAME = "mini-captions"
CAPTIONS_VERSION = 1  # increase it whenever the same seed gives other bytes; cached copies are found by it
CAPTION_SIZES = (2000, 300, 500)
"""Pictures in train, val and test."""
PER_IMAGE = 5
"""Captions per picture."""
COUNTS = (1, 2, 2, 3)
"""A picture has one of these numbers of things. They are small because each thing adds a dozen words per caption."""
FOLDERS = {"train": "train2014", "val": "val2014", "test": "val2014"}


def sample_captions(seed: int = 0, sizes: Sizes = CAPTION_SIZES) -> list[tuple[str, Scene, tuple[str, ...]]]:
    """Draw all pictures of the caption set.

    Args:
        seed: seed of everything that is drawn.
        sizes: number of pictures in train, val and test.

    Returns:
        split, scene and captions of every picture, split by split; the captions of one picture all differ.
    """
    rng = Random(f"mini-captions-{CAPTIONS_VERSION}-{seed}")
    seen: set[tuple[str, frozenset[str]]] = set()
    drawn = []
    for split, size in zip(SPLITS, sizes, strict=True):
        for _ in range(size):
            scene = _new_scene(rng, seen)
            drawn.append((split, scene, _distinct_captions(rng, scene)))
    return drawn


def _new_scene(rng: Random, seen: set[tuple[str, frozenset[str]]]) -> Scene:
    """Draw a scene that is not in `seen`, and add it there."""
    for _ in range(MAX_DRAWS):
        scene = sample_scene(rng, rng.choice(COUNTS))
        # Scenes are compared in words and not in pixels, and the order of the things has no meaning.
        key = (scene.background, frozenset(map(describe_thing, scene.things)))
        if key not in seen:
            seen.add(key)
            return scene
    raise AssertionError("no new scene was found: the sizes are too large for the vocabulary")


def _distinct_captions(rng: Random, scene: Scene) -> tuple[str, ...]:
    """Draw `PER_IMAGE` captions of a scene that all differ."""
    for _ in range(MAX_DRAWS):
        texts = captions(scene, rng, PER_IMAGE)
        if len(set(texts)) == PER_IMAGE:
            return tuple(texts)
    raise AssertionError("the grammar found too few different captions for a scene")


def build_captions(root: Path, seed: int = 0, sizes: Sizes = CAPTION_SIZES) -> None:
    """Write the caption set to `root`; the same seed and sizes give the same bytes.

    Args:
        root: folder to write to, created if necessary; files with the same names are replaced.
        seed: seed of everything that is drawn.
        sizes: number of pictures in train, val and test.

    Raises:
        OSError: the folder cannot be written.
    """
    images = []
    for folder in FOLDERS.values():
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, (split, scene, texts) in enumerate(sample_captions(seed, sizes), 1):
        record = _record(number, split, texts)
        (root / record["filepath"] / record["filename"]).write_bytes(png(scene))
        images.append(record)
    dataset = {"dataset": CAPTIONS_NAME, "version": CAPTIONS_VERSION, "seed": seed, "images": images}
    (root / "dataset_coco.json").write_text(file_text(dataset), encoding="utf-8")


def _record(number: int, split: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the record of one image in Karpathy's form; `number` becomes its `cocoid` and starts at 1."""
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


def ensure_captions(cache_dir: Path | None = None, seed: int = 0, sizes: Sizes = CAPTION_SIZES) -> Path:
    """Return the folder of the caption set, which is built on first use.

    Args:
        cache_dir: where generated sets are kept; None takes the cache folder of the user.
        seed: as in `build_captions`.
        sizes: as in `build_captions`.

    Raises:
        UserError: the folder cannot be written.
    """
    return ensure_built(cache_dir, CAPTIONS_NAME, CAPTIONS_VERSION, seed, sizes, build_captions)
