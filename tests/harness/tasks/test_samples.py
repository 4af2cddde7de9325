"""Copies of the captioned images that a run keeps."""

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness.data.coco import CaptionImage
from harness.data.problem import Problem
from harness.errors import UserError
from harness.records import Data, read_questions
from harness.tasks.samples import SAMPLES, SIDE, TEXT_SAMPLES, chosen_questions, keep_questions, keep_samples

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


# Questions


def problem(number: int, image: Path | None) -> Problem:
    return Problem(str(number), "test", f"Which {number}?", ("a", "b"), 1, "a hint", image, category="Birds")


@pytest.mark.parametrize(("pictured", "others"), [(0, 0), (1, 0), (3, 2), (400, 1000)])
def test_questions_are_spread_over_the_split(pictured: int, others: int) -> None:
    problems = [problem(n, Path("x.png") if n < pictured else None) for n in range(pictured + others)]
    chosen = chosen_questions(problems)
    numbers = [int(one.qid) for one in chosen]
    assert numbers == sorted(set(numbers))
    with_image = [n for n in numbers if n < pictured]
    assert len(with_image) == min(pictured, SAMPLES) and len(numbers) - len(with_image) == min(others, TEXT_SAMPLES)
    if pictured == 400:
        assert with_image == list(range(0, 400, 20))


def test_kept_questions_are_read_back(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    results = tmp_path / "results"
    keep_questions([problem(1, tmp_path / "a.png"), problem(2, None)], "scienceqa", DATA, results)
    kept = read_questions("scienceqa", DATA, results)
    assert kept is not None
    one, other = kept.questions
    assert (one.question, one.options, one.gold, one.hint, one.category) == (
        "Which 1?",
        ["a", "b"],
        1,
        "a hint",
        "Birds",
    )
    assert one.image is not None and Image.open(results / one.image).size == (8, 8) and other.image is None


def test_nothing_is_written_without_questions(tmp_path: Path) -> None:
    keep_questions([], "scienceqa", DATA, tmp_path)
    assert not list(tmp_path.iterdir()) and read_questions("scienceqa", DATA, tmp_path) is None


def test_a_run_on_a_part_of_the_data_replaces_no_questions_of_the_whole(tmp_path: Path) -> None:
    part = DATA.model_copy(update={"limit": 1})
    keep_questions([problem(1, None)], "scienceqa", DATA, tmp_path)
    keep_questions([problem(2, None)], "scienceqa", part, tmp_path)
    for data, qid in ((DATA, "1"), (part, "2")):
        kept = read_questions("scienceqa", data, tmp_path)
        assert kept is not None and [question.qid for question in kept.questions] == [qid]
