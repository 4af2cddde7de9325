"""Reading ScienceQA: a good set comes through whole, each way of being bad is named by qid and field."""

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from harness.data.check import check_scienceqa
from harness.data.huggingface import fetch, write_official
from harness.data.imagefile import check_images
from harness.data.scienceqa import OFFICIAL_SIZES, load_scienceqa
from harness.errors import UserError


def test_loads_in_split_order(folder):
    data = load_scienceqa(folder.root)
    assert [p.qid for p in data.splits["train"]] == ["2", "1"]
    assert data.name == "scienceqa-subset"
    assert data.split_sizes == {"train": 2, "val": 1, "test": 2}
    first = data.splits["test"][0]
    assert (first.answer, first.choices, first.image) == (1, ("water", "ice", "steam"), folder.image_path("test", "4"))
    assert (first.subject, first.grade, first.caption) == ("natural science", "grade4", "")
    assert set(data.sha256) == {"problems.json", "pid_splits.json"}


def test_hash_follows_content(folder):
    before = load_scienceqa(folder.root).data_hash
    assert load_scienceqa(folder.root).data_hash == before
    folder.problems["1"]["hint"] = "changed"
    folder.write()
    assert load_scienceqa(folder.root).data_hash != before


def test_limit_and_other_splits(folder):
    data = load_scienceqa(folder.root, splits=("test", "minitest"), limit=1)
    assert [p.qid for p in data.splits["test"]] == ["4"]
    assert [(p.qid, p.split) for p in data.splits["minitest"]] == [("10", "test")]
    assert data.split_sizes["test"] == 2 and data.used_sizes["test"] == 1


def test_captions(folder):
    with pytest.raises(UserError, match=r"captions\.json"):
        load_scienceqa(folder.root, captions=True)
    (folder.root / "captions.json").write_text(json.dumps({"captions": {"4": "a glass"}}))
    data = load_scienceqa(folder.root, captions=True)
    assert data.splits["test"][0].caption == "a glass"
    assert "captions.json" in data.sha256


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"answer": 3}, "answer"),
        ({"answer": -1}, "answer"),
        ({"answer": True}, "answer"),
        ({"answer": "1"}, "answer"),
        ({"choices": []}, "choices"),
        ({"choices": ["a", " "]}, "choices.1"),
        ({"choices": "abc"}, "choices"),
        ({"choices": ["x"] * 27}, "choices"),
        ({"question": ""}, "question"),
        ({"question": None}, "question"),
        ({"question": "\ud800"}, "question"),
        ({"hint": 3}, "hint"),
        ({"subject": "alchemy"}, "subject"),
        ({"grade": "grade13"}, "grade"),
        ({"image": 5}, "image"),
        ({"image": "../../../outside.png"}, "image"),
        ({"image": "/etc/hostname"}, "image"),
        ({"image": "missing.png"}, "image"),
        ({"image": "."}, "image"),
        ({"image": "a\0b"}, "image"),
        ({"split": "train"}, "split"),
    ],
)
def test_bad_record_is_named(folder, changes: dict[str, Any], field: str):
    (folder.root.parent / "outside.png").write_bytes(b"x")
    folder.problems["4"] = folder.record("test", **changes) if "split" not in changes else folder.record("train")
    folder.write()
    with pytest.raises(UserError, match=rf"problem 4, field '{field}'") as caught:
        load_scienceqa(folder.root)
    assert "\n" not in str(caught.value)


def test_image_through_a_link(folder):
    outside = folder.root.parent / f"{folder.root.name}-outside.png"
    Image.new("RGB", (2, 2)).save(outside)
    path = folder.image_path("test", "4")
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(UserError, match=r"problem 4, field 'image'.*link"):
        load_scienceqa(folder.root)


def test_image_that_would_block(folder):
    path = folder.image_path("test", "4")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="problem 4, field 'image'"):
        load_scienceqa(folder.root)


def test_data_root_may_be_a_link(folder, tmp_path_factory):
    link = tmp_path_factory.mktemp("link") / "data"
    link.symlink_to(folder.root, target_is_directory=True)
    assert load_scienceqa(link).used_sizes == {"train": 2, "val": 1, "test": 2}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": ["1", "1"]}, "problem 1 is listed twice in split 'train'"),
        ({"train": ["1"], "val": [], "test": ["1"]}, "problem 1 is in two splits"),
        ({"train": ["1"], "val": [], "test": ["99"]}, "problem 99 is not in problems.json"),
        ({"train": ["1"], "val": []}, "no split 'test'"),
        ({"train": [1]}, "train.0"),
        ([], "pid_splits.json"),
    ],
)
def test_bad_splits(folder, splits: Any, message: str):
    folder.splits = splits
    folder.write()
    with pytest.raises(UserError, match=message):
        load_scienceqa(folder.root)


def test_id_that_is_a_path(folder):
    folder.problems["../1"] = folder.record("test")
    folder.splits["test"] = ["../1"]
    folder.write()
    with pytest.raises(UserError, match=r"problem id '\.\./1'"):
        load_scienceqa(folder.root)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"1": {}, "1": {}}', "[" * 100_000, "\udcff"])
def test_bad_json(folder, text: str):
    (folder.root / "problems.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"problems\.json"):
        load_scienceqa(folder.root)


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="--data-root"):
        load_scienceqa(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"problems\.json"):
        load_scienceqa(tmp_path)


def test_set_that_calls_itself_full(folder):
    with pytest.raises(UserError, match="12726"):
        load_scienceqa(folder.root, full=True)
    marker = folder.root / "dataset.json"
    for claim in ({"name": "mine", "full": True}, {"name": "scienceqa"}):
        marker.write_text(json.dumps(claim))
        with pytest.raises(UserError, match="is declared as the full ScienceQA"):
            load_scienceqa(folder.root)
    marker.write_text(json.dumps({"name": "mini"}))
    assert load_scienceqa(folder.root).name == "mini"


def test_official_counts_make_the_name(tmp_path, folder):
    folder.problems, folder.splits = {}, {}
    for split, size in OFFICIAL_SIZES.items():
        folder.splits[split] = [f"{split}{i}" for i in range(size)]
        folder.problems |= {qid: folder.record(split) for qid in folder.splits[split]}
    folder.write()
    assert load_scienceqa(folder.root, full=True, limit=1).name == "scienceqa"


def test_bad_images_can_be_skipped(folder):
    folder.image_path("test", "4").unlink()
    folder.image_path("train", "1").write_bytes(b"no image")
    data = load_scienceqa(folder.root, skip_bad_images=True)
    assert [bad.qid for bad in data.skipped] == ["4"]
    with pytest.raises(UserError, match="problem 1, field 'image'"):
        check_images(data.all_samples())
    data = data.checked(skip_bad=True)
    assert data.used_sizes == {"train": 1, "val": 1, "test": 1}
    assert {bad.qid for bad in data.skipped} == {"1", "4"}


def test_check_report(folder):
    folder.image_path("train", "1").write_bytes(b"no image")
    report = check_scienceqa(folder.root)
    assert report.counts["train"]["images present"] == 1 and report.counts["train"]["images readable"] == 0
    assert report.counts["test"]["context: none"] == 1
    assert report.counts["test"]["subject: language science"] == 1
    assert [bad.qid for bad in report.bad_images] == ["1"] and not report.ok
    assert report.duplicates == ()
    folder.problems["3"]["question"] = folder.problems["2"]["question"]
    folder.write()
    assert check_scienceqa(folder.root).duplicates == (("train/2", "val/3"),)
    json.dumps(report.as_dict())


def row(**changes: Any) -> dict[str, Any]:
    fields = ("question", "choices", "answer", "hint", "task", "grade", "subject", "topic", "category", "skill")
    from_record = {
        "question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": "", "task": "closed choice",
        "grade": "grade2", "subject": "social science", "topic": "geography", "category": "Maps", "skill": "Read",
    }  # fmt: skip
    return {**{f: from_record[f] for f in fields}, "lecture": "L", "solution": "S", "image": None, **changes}


def picture() -> dict[str, Any]:
    """An image as it comes undecoded."""
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (255, 0, 0)).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_hugging_face_rows_become_the_official_layout(tmp_path):
    write_official({"train": [row()], "validation": [row(answer=0)], "test": [row(image=picture())]}, tmp_path)
    data = load_scienceqa(tmp_path)
    assert data.name == "scienceqa-hf" and data.used_sizes == {"train": 1, "val": 1, "test": 1}
    problem = data.splits["test"][0]
    assert (problem.question, problem.answer, problem.lecture, problem.grade) == ("Which?", 1, "L", "grade2")
    assert problem.image is not None and Image.open(problem.image).getpixel((0, 0)) == (255, 0, 0)
    assert data.splits["val"][0].image is None


def test_bad_hugging_face_row(tmp_path):
    with pytest.raises(UserError, match="hf-test-1, field 'answer'"):
        write_official({"test": [row(), row(answer=2)]}, tmp_path)
    with pytest.raises(UserError, match="hf-test-0, field 'image': holds no file content"):
        write_official({"test": [row(image={"bytes": None, "path": "/etc/hostname"})]}, tmp_path)
    with pytest.raises(UserError, match="unknown split 'dev'"):
        write_official({"dev": []}, tmp_path)


def test_a_hostile_hugging_face_image_is_left_to_the_check(tmp_path):
    bad = {"bytes": b"GIF89a", "path": None}
    write_official({"train": [row()], "val": [row()], "test": [row(image=bad)]}, tmp_path)
    with pytest.raises(UserError, match="problem hf-test-0, field 'image'"):
        load_scienceqa(tmp_path).checked()


def test_fetching(tmp_path, monkeypatch):
    """The package is stood in for: what it is asked for, and what becomes of what it gives."""
    asked: list[Any] = []

    class Rows(dict):
        def cast_column(self, column, feature):
            asked.append((column, feature))
            return self

    def load_dataset(name):
        asked.append(name)
        if "offline" in asked:
            raise ConnectionError("no such host\nand more")
        return Rows(train=[row()], validation=[row()], test=[row(image=picture())])

    stand_in = SimpleNamespace(load_dataset=load_dataset, Image=lambda decode: f"decode={decode}")
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    fetch(tmp_path / "new")
    assert asked == ["derek-thomas/ScienceQA", ("image", "decode=False")]
    assert load_scienceqa(tmp_path / "new").checked().used_sizes == {"train": 1, "val": 1, "test": 1}
    with pytest.raises(UserError, match="not an empty folder; give --data-root a new folder"):
        fetch(tmp_path / "new")
    asked.append("offline")
    with pytest.raises(UserError, match=r"cannot be downloaded \(no such host\)"):
        fetch(tmp_path / "other")


def test_missing_datasets_package_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        fetch(tmp_path)


def test_real_records(real_data: Path):
    data = load_scienceqa(real_data / "scienceqa150", captions=True)
    assert data.used_sizes == {"train": 50, "val": 50, "test": 50}
    assert check_images(data.all_samples()) == []
    assert sum(problem.image is not None for problem in data.all_samples()) == 67
