"""Reading ScienceQA: a valid set is loaded completely, and every kind of bad record is named by id and field."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.data.scienceqa import OFFICIAL_SIZES, load_scienceqa, read_splits
from harness.errors import UserError


def test_loads_in_split_order(folder):
    data = load_scienceqa(folder.root)
    assert [p.qid for p in data.splits["train"]] == ["2", "1"]
    assert data.split_sizes == {"train": 2, "val": 1, "test": 2}


def test_a_part_of_scienceqa_is_named_a_subset(folder):
    assert load_scienceqa(folder.root).name == "scienceqa-subset"


def test_a_problem_has_the_fields_of_its_record(folder):
    first = load_scienceqa(folder.root).splits["test"][0]
    assert (first.answer, first.choices, first.image) == (1, ("water", "ice", "steam"), folder.image_path("test", "4"))
    assert (first.subject, first.grade, first.caption) == ("natural science", "grade4", "")


def test_every_file_that_is_read_is_hashed(folder):
    assert set(load_scienceqa(folder.root).sha256) == {"problems.json", "pid_splits.json"}


def test_the_hashes_are_those_of_what_was_parsed(folder, read_once):
    (folder.root / "captions.json").write_text(json.dumps({"captions": {"4": "a glass"}}))
    (folder.root / "dataset.json").write_text(json.dumps({"name": "own"}))
    found = load_scienceqa(folder.root, captions=True).sha256
    assert found == read_once and len(found) == 4


def test_hash_follows_content(folder):
    before = load_scienceqa(folder.root).data_hash
    assert load_scienceqa(folder.root).data_hash == before
    folder.problems["1"]["hint"] = "changed"
    folder.write()
    assert load_scienceqa(folder.root).data_hash != before


def test_a_limit_keeps_the_first_problems_of_a_split(folder):
    data = load_scienceqa(folder.root, splits=("test", "minitest"), limit=1)
    assert [p.qid for p in data.splits["test"]] == ["4"]
    assert data.split_sizes["test"] == 2 and data.used_sizes["test"] == 1


def test_a_problem_of_another_split_keeps_its_base_split(folder):
    data = load_scienceqa(folder.root, splits=("test", "minitest"), limit=1)
    assert [(p.qid, p.split) for p in data.splits["minitest"]] == [("10", "test")]


def test_missing_captions_are_named(folder):
    with pytest.raises(UserError, match=r"captions\.json"):
        load_scienceqa(folder.root, captions=True)


def test_captions_are_read_on_request(folder):
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


def test_half_of_a_surrogate_pair_is_named(folder):
    folder.problems["4"] = folder.record("test", question="\ud800")
    folder.write()
    with pytest.raises(UserError, match=r"problems\.json, 4, question: contains half of a surrogate pair"):
        load_scienceqa(folder.root)


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


def test_an_id_is_found_twice_among_very_many(tmp_path: Path):
    ids = [str(number) for number in range(100_000)]
    (tmp_path / "pid_splits.json").write_text(json.dumps({"train": [*ids, ids[-1]]}))
    before = time.process_time()
    with pytest.raises(UserError, match="problem 99999 is listed twice"):
        read_splits(tmp_path / "pid_splits.json")
    assert time.process_time() - before < 5  # compared with all ids before it, each in turn, it takes a minute


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


def test_folder_without_problems(tmp_path):
    with pytest.raises(UserError, match=r"problems\.json"):
        load_scienceqa(tmp_path)


def test_a_full_set_must_have_the_official_sizes(folder):
    with pytest.raises(UserError, match="12726"):
        load_scienceqa(folder.root, full=True)


@pytest.mark.parametrize("claim", [{"name": "mine", "full": True}, {"name": "scienceqa"}])
def test_a_marker_that_claims_the_full_set_must_be_right(folder, claim):
    (folder.root / "dataset.json").write_text(json.dumps(claim))
    with pytest.raises(UserError, match="is declared as the full ScienceQA"):
        load_scienceqa(folder.root)


def test_a_set_takes_its_name_from_the_marker(folder):
    (folder.root / "dataset.json").write_text(json.dumps({"name": "mini"}))
    assert load_scienceqa(folder.root).name == "mini"


def test_official_counts_make_the_name(tmp_path, folder):
    folder.problems, folder.splits = {}, {}
    for split, size in OFFICIAL_SIZES.items():
        folder.splits[split] = [f"{split}{i}" for i in range(size)]
        folder.problems |= {qid: folder.record(split) for qid in folder.splits[split]}
    folder.write()
    assert load_scienceqa(folder.root, full=True, limit=1).name == "scienceqa"


@pytest.fixture
def with_bad_images(folder):
    """The folder with the image of problem 4 missing and that of problem 1 damaged."""
    folder.image_path("test", "4").unlink()
    folder.image_path("train", "1").write_bytes(b"no image")
    return folder


def test_loading_skips_missing_images_only(with_bad_images):
    data = load_scienceqa(with_bad_images.root, skip_bad_images=True)
    assert [bad.qid for bad in data.skipped] == ["4"]
    with pytest.raises(UserError, match="problem 1, field 'image'"):
        data.checked()


def test_checking_skips_damaged_images_too(with_bad_images):
    data = load_scienceqa(with_bad_images.root, skip_bad_images=True).checked(skip_bad=True)
    assert data.used_sizes == {"train": 1, "val": 1, "test": 1}
    assert {bad.qid for bad in data.skipped} == {"1", "4"}


def test_real_records(real_data: Path):
    data = load_scienceqa(real_data / "scienceqa150", captions=True)
    assert data.used_sizes == {"train": 50, "val": 50, "test": 50}
    assert data.checked().skipped == ()
    assert sum(problem.image is not None for problem in data.all_samples()) == 67
