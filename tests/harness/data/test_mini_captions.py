"""The procedural caption set: loadable, true, without repetition, the same bytes for the same seed."""

import re
from pathlib import Path

import pytest

from harness.data.check import check_coco
from harness.data.coco import load_coco
from harness.data.mini import captions as module
from harness.data.mini.captions import build_captions, ensure_captions, sample_captions
from harness.data.mini.world import VOCABULARY

SIZES = (12, 3, 5)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    build_captions(folder, sizes=SIZES)
    return folder


def test_the_loader_reads_it_and_the_check_passes(root: Path) -> None:
    data = load_coco(root)
    assert data.name == "mini-captions"
    assert data.used_sizes == {"train": 12, "val": 3, "test": 5}
    assert all(len(set(image.captions)) == 5 for image in data.all_samples())
    assert {image.image.parent.name for image in data.splits["train"]} == {"train2014"}
    assert {image.image.parent.name for image in data.splits["test"]} == {"val2014"}
    report = check_coco(root)
    assert report.ok and not report.duplicates
    assert report.counts["test"]["captions"] == 25


def test_the_same_seed_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    build_captions(tmp_path, sizes=SIZES)
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    assert len(files) == 21
    assert all((root / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)
    assert sample_captions(1, SIZES) != sample_captions(0, SIZES)


def test_captions_are_true_and_scenes_are_new() -> None:
    drawn = sample_captions(sizes=(300, 20, 20))
    assert len({frozenset(scene.things) for _, scene, _ in drawn}) == 340
    for _, scene, texts in drawn:
        for text in texts:
            assert scene.background in text
            for attribute in ("shape", "colour", "texture", "place"):
                # A caption names what is there, all of it, and nothing else.
                words = {w for w in VOCABULARY[attribute] if re.search(rf"(?<![\w-]){w}(?![\w-])", text)}
                assert words == scene.present(attribute), text


def test_it_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_captions(tmp_path, sizes=(2, 1, 1))
    assert load_coco(first).used_sizes == {"train": 2, "val": 1, "test": 1}
    monkeypatch.setattr(module, "build_captions", lambda *arguments: pytest.fail("built again"))
    assert ensure_captions(tmp_path, sizes=(2, 1, 1)) == first
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
