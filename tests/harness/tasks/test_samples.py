"""Copies of the captioned images that a run keeps."""

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness.data.coco import CaptionImage
from harness.errors import UserError
from harness.records import Data
from harness.tasks.samples import SIDE, keep_samples

DATA = Data(name="mine", data_hash="a" * 64, files={}, split_sizes={})


def keep(folder: Path, *images: Path) -> list[Path]:
    shown = [
        (CaptionImage(str(number), "test", image, ("a dog", "an owl")), "a cat") for number, image in enumerate(images)
    ]
    samples = keep_samples(shown, "coco", DATA, folder)
    assert [(s.image_id, s.caption, s.references) for s in samples] == [
        (str(number), "a cat", ["a dog", "an owl"]) for number in range(len(images))
    ]
    return [folder / sample.image for sample in samples]


def test_a_small_picture_is_kept_as_it_is(tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    Image.effect_noise((SIDE, 7), 50).convert("RGB").save(small)
    (copy,) = keep(tmp_path / "results", small)
    assert copy.read_bytes()[:4] == b"\x89PNG" and Image.open(copy).tobytes() == Image.open(small).tobytes()


def test_a_photograph_is_made_small(tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    Image.effect_noise((1280, 640), 50).convert("RGB").save(large)
    (copy,) = keep(tmp_path / "results", large)
    assert copy.suffix == ".jpg" and Image.open(copy).size == (320, 160)


def test_copies_of_one_data_set_share_a_folder(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (640, 8)).save(tmp_path / "b.jpg")
    first, second = keep(tmp_path / "results", tmp_path / "a.png", tmp_path / "b.jpg")
    assert first.parent == second.parent == tmp_path / "results" / "samples" / "coco" / f"mine-{'a' * 16}"


def test_nothing_but_pixels_is_passed_on(tmp_path: Path) -> None:
    note = PngInfo()
    note.add_text("Comment", "somebody's words")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=note, icc_profile=b"somebody's profile")
    Image.new("RGB", (640, 8)).save(tmp_path / "b.jpg", comment=b"somebody's words", icc_profile=b"somebody's profile")
    for copy in keep(tmp_path / "results", tmp_path / "a.png", tmp_path / "b.jpg"):
        assert "icc_profile" not in Image.open(copy).info and b"somebody" not in copy.read_bytes()


def test_runs_on_the_same_data_share_the_copies(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    first = keep(tmp_path / "results", tmp_path / "a.png")
    assert keep(tmp_path / "results", tmp_path / "a.png") == first
    assert [path for path in (tmp_path / "results").rglob("*") if path.is_file()] == first


def test_an_image_that_went_bad_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"a\.png: not a usable image"):
        keep(tmp_path / "results", tmp_path / "a.png")
