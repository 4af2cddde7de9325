"""The report on a whole data set."""

import json
from pathlib import Path

from harness.data.check import check_coco, check_scienceqa


def test_scienceqa_counts_images_contexts_and_subjects(folder):
    folder.image_path("train", "1").write_bytes(b"no image")
    report = check_scienceqa(folder.root)
    assert report.counts["train"]["images present"] == 1 and report.counts["train"]["images readable"] == 0
    assert report.counts["test"]["context: none"] == 1
    assert report.counts["test"]["subject: language science"] == 1


def test_captions_are_counted_where_there_is_a_file(folder):
    assert "captions" not in check_scienceqa(folder.root).counts["train"]
    (folder.root / "captions.json").write_text(json.dumps({"captions": {"1": "ice", "hf-test-0": "water"}}))
    counts = check_scienceqa(folder.root).counts
    assert (counts["train"]["captions"], counts["test"]["captions"]) == (1, 0)


def test_a_bad_image_is_in_the_report_and_the_set_is_not_ok(folder):
    folder.image_path("train", "1").write_bytes(b"no image")
    report = check_scienceqa(folder.root)
    assert [bad.qid for bad in report.bad_images] == ["1"] and not report.ok


def test_the_same_problem_in_two_splits_is_a_duplicate(folder):
    assert check_scienceqa(folder.root).duplicates == ()
    folder.problems["3"]["question"] = folder.problems["2"]["question"]
    folder.write()
    assert check_scienceqa(folder.root).duplicates == (("train/2", "val/3"),)


def test_a_report_can_be_written_as_json(folder):
    folder.image_path("train", "1").write_bytes(b"no image")
    json.dumps(check_scienceqa(folder.root).as_dict())


def test_bad_coco_images_are_missing_first_and_unreadable_second(coco_folder):
    coco_folder.image_path(1).write_bytes(b"x")
    coco_folder.image_path(2).unlink()
    report = check_coco(coco_folder.root)
    assert [bad.qid for bad in report.bad_images] == ["2", "1"] and not report.ok
    assert report.counts["train"] == {"images": 2, "images present": 1, "images readable": 0, "captions": 2}


def test_the_same_coco_image_in_two_splits_is_a_duplicate(coco_folder):
    coco_folder.image_path(4).write_bytes(coco_folder.image_path(3).read_bytes())
    assert check_coco(coco_folder.root).duplicates == (("val/3", "test/4"),)


def test_real_coco_images(real_data: Path):
    report = check_coco(real_data / "coco")
    assert report.ok and {split: counts["images"] for split, counts in report.counts.items()} == {
        "train": 30,
        "val": 21,
        "test": 22,
    }
