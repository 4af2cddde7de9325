"""ScienceQA from its Hugging Face form."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from harness.data.huggingface import fetch, write_official
from harness.data.scienceqa import load_scienceqa
from harness.errors import UserError


def row(**changes: Any) -> dict[str, Any]:
    """Return a valid row with some fields changed."""
    return {
        "question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": "", "task": "closed choice",
        "grade": "grade2", "subject": "social science", "topic": "geography", "category": "Maps", "skill": "Read",
        "lecture": "L", "solution": "S", "image": None, **changes,
    }  # fmt: skip


def picture() -> dict[str, Any]:
    """Return an image as it is in an undecoded column."""
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (255, 0, 0)).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_rows_become_the_official_layout(tmp_path):
    write_official({"train": [row()], "validation": [row(answer=0)], "test": [row(image=picture())]}, tmp_path)
    data = load_scienceqa(tmp_path)
    assert data.name == "scienceqa-hf" and data.used_sizes == {"train": 1, "val": 1, "test": 1}
    problem = data.splits["test"][0]
    assert (problem.question, problem.answer, problem.lecture, problem.grade) == ("Which?", 1, "L", "grade2")


def test_an_image_is_written_as_a_file(tmp_path):
    write_official({"train": [row()], "validation": [row(answer=0)], "test": [row(image=picture())]}, tmp_path)
    data = load_scienceqa(tmp_path)
    problem = data.splits["test"][0]
    assert problem.image is not None and Image.open(problem.image).getpixel((0, 0)) == (255, 0, 0)
    assert data.splits["val"][0].image is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"test": [row(), row(answer=2)]}, "hf-test-1, field 'answer'"),
        (
            {"test": [row(image={"bytes": None, "path": "/etc/hostname"})]},
            "hf-test-0, field 'image': has no file content",
        ),
        ({"dev": []}, "unknown split 'dev'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        write_official(rows, tmp_path)


def test_an_image_that_cannot_be_decoded_is_left_to_the_check(tmp_path):
    bad = {"bytes": b"GIF89a", "path": None}
    write_official({"train": [row()], "val": [row()], "test": [row(image=bad)]}, tmp_path)
    with pytest.raises(UserError, match="problem hf-test-0, field 'image'"):
        load_scienceqa(tmp_path).checked()


class FakeDatasets:
    """A replacement for the package `datasets`: it records its arguments and returns one row per split."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None
        self.__version__ = "4.0.0"
        self.Image = lambda decode: f"decode={decode}"

    def load_dataset(self, name: str) -> SimpleNamespace:
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(cast_column=self._cast_column)

    def _cast_column(self, column: str, feature: str) -> dict[str, list[dict[str, Any]]]:
        self.asked.append((column, feature))
        return {"train": [row()], "validation": [row()], "test": [row(image=picture())]}


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> FakeDatasets:
    """The package `datasets`, replaced by one that needs no network."""
    fake = FakeDatasets()
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


def test_fetching_asks_for_undecoded_images(tmp_path: Path, datasets: FakeDatasets):
    fetch(tmp_path / "new")
    assert datasets.asked == ["derek-thomas/ScienceQA", ("image", "decode=False")]


def test_a_fetched_set_can_be_loaded(tmp_path: Path, datasets: FakeDatasets):
    fetch(tmp_path / "new")
    assert load_scienceqa(tmp_path / "new").checked().used_sizes == {"train": 1, "val": 1, "test": 1}


def test_fetching_needs_an_empty_folder(tmp_path: Path, datasets: FakeDatasets):
    fetch(tmp_path / "new")
    with pytest.raises(UserError, match="not an empty folder; give --data-root a new folder"):
        fetch(tmp_path / "new")


def test_a_failed_download_is_one_line(tmp_path: Path, datasets: FakeDatasets):
    for error in (ConnectionError, Exception):
        datasets.error = error("no such host\nand more")
        with pytest.raises(UserError, match=r"ScienceQA: cannot be downloaded \(.*no such host and more\)"):
            fetch(tmp_path / "other")


def test_a_version_that_runs_the_code_of_data_sets_is_refused(tmp_path: Path, datasets: FakeDatasets):
    datasets.__version__ = "3.6.0"
    with pytest.raises(UserError, match=r"datasets 3\.6\.0: can run code .*datasets>=4"):
        fetch(tmp_path / "other")
    assert not datasets.asked


def test_missing_datasets_package_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        fetch(tmp_path)
