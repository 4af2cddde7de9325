"""The generated caption set: it can be loaded, is true, has no repetitions and follows its seed."""

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


def test_the_common_loader_reads_it(root: Path) -> None:
    data = load_coco(root)
    assert data.name == "mini-captions"
    assert data.used_sizes == {"train": 12, "val": 3, "test": 5}


def test_a_picture_has_five_different_captions(root: Path) -> None:
    assert all(len(set(image.captions)) == 5 for image in load_coco(root).all_samples())


def test_pictures_lie_in_the_folders_of_coco(root: Path) -> None:
    data = load_coco(root)
    assert {image.image.parent.name for image in data.splits["train"]} == {"train2014"}
    assert {image.image.parent.name for image in data.splits["test"]} == {"val2014"}


def test_the_check_of_the_set_passes(root: Path) -> None:
    report = check_coco(root)
    assert report.ok and not report.duplicates
    assert report.counts["test"]["captions"] == 25


def test_the_same_seed_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    build_captions(tmp_path, sizes=SIZES)
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    assert len(files) == 21
    assert all((root / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_another_seed_draws_other_pictures() -> None:
    assert sample_captions(1, SIZES) != sample_captions(0, SIZES)


def test_no_scene_occurs_twice() -> None:
    drawn = sample_captions(sizes=(300, 20, 20))
    assert len({frozenset(scene.things) for _, scene, _ in drawn}) == 340


def test_captions_name_what_is_there_and_nothing_else() -> None:
    drawn = sample_captions(sizes=(300, 20, 20))
    for _, scene, texts in drawn:
        for text in texts:
            assert scene.background in text
            for attribute in ("shape", "colour", "texture", "place"):
                words = {w for w in VOCABULARY[attribute] if re.search(rf"(?<![\w-]){w}(?![\w-])", text)}
                assert words == scene.present(attribute), text


def test_the_cached_set_has_the_given_sizes(tmp_path: Path) -> None:
    root = ensure_captions(tmp_path, sizes=(2, 1, 1))
    assert load_coco(root).used_sizes == {"train": 2, "val": 1, "test": 1}


def test_it_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_captions(tmp_path, sizes=(2, 1, 1))
    monkeypatch.setattr(module, "build_captions", lambda *arguments: pytest.fail("built again"))
    assert ensure_captions(tmp_path, sizes=(2, 1, 1)) == first
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
