"""ScienceQA from its Hugging Face form."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.data import huggingface, scienceqa
from harness.data.huggingface import fetch_scienceqa, write_official
from harness.data.scienceqa import load_scienceqa
from harness.errors import UserError
from tests.standin_hub import save_parquet


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


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of parquet files in place of a download, one problem per split."""
    splits = {"train": [row()], "validation": [row(answer=0)], "test": [row(image=picture())]}
    folder = save_parquet(splits, tmp_path / "hub")
    monkeypatch.setattr(huggingface, "download", lambda source, say: sorted(folder.glob("data/*")))
    monkeypatch.setattr(scienceqa, "OFFICIAL_SIZES", {"train": 1, "val": 1, "test": 1})
    return folder


def test_a_fetched_set_is_the_full_benchmark(tmp_path: Path, downloaded: Path) -> None:
    fetch_scienceqa(tmp_path / "new", lambda line: None)
    loaded = load_scienceqa(tmp_path / "new").checked()
    assert (loaded.name, loaded.used_sizes) == ("scienceqa-hf", {"train": 1, "val": 1, "test": 1})
    problem = loaded.splits["test"][0]
    assert problem.image is not None and Image.open(problem.image).getpixel((0, 0)) == (255, 0, 0)
    assert not (tmp_path / "new.partial").exists()


def test_no_code_beside_the_data_is_run(tmp_path: Path, downloaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    for script in ("ScienceQA.py", "data.py", "parquet.py", "parquet/parquet.py", "data/data.py"):
        for folder in (downloaded, tmp_path):
            path = folder / script
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"open({str(trace)!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface, "download", lambda source, say: sorted(downloaded.glob("data/*.parquet")))
    fetch_scienceqa(tmp_path / "new", lambda line: None)
    assert load_scienceqa(tmp_path / "new").used_sizes == {"train": 1, "val": 1, "test": 1}
    assert not trace.exists()


def test_an_incomplete_set_is_not_believed(tmp_path: Path, downloaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scienceqa, "OFFICIAL_SIZES", {"train": 2, "val": 1, "test": 1})
    with pytest.raises(UserError, match="is declared as the full ScienceQA but has train 1"):
        fetch_scienceqa(tmp_path / "new", lambda line: None)
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(scienceqa, "OFFICIAL_SIZES", {"train": 1, "val": 1, "test": 1})
    fetch_scienceqa(tmp_path / "new", lambda line: None)


def test_fetching_needs_an_empty_folder(tmp_path: Path, downloaded: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="full: exists and is not an empty folder; give a new folder"):
        fetch_scienceqa(tmp_path / "full", lambda line: None)


def test_a_damaged_file_is_one_line(tmp_path: Path, downloaded: Path) -> None:
    next(downloaded.glob("data/train*")).write_bytes(b"PAR1")
    with pytest.raises(UserError, match="derek-thomas/ScienceQA: cannot be read") as error:
        fetch_scienceqa(tmp_path / "new", lambda line: None)
    assert "\n" not in str(error.value)
