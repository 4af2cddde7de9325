"""The command line on captions: checking a folder, scoring a file."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.command_line import call

REFERENCES = {"7": ["a red star.", "one star"], "8": ["two blue hearts on gray", "hearts of blue"]}


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """Two images in Karpathy's form."""
    images = [
        {"filename": f"{key}.png", "filepath": "val2014", "cocoid": int(key), "split": split,
         "sentences": [{"raw": text} for text in texts]}
        for (key, texts), split in zip(REFERENCES.items(), ("train", "test"), strict=True)
    ]  # fmt: skip
    (tmp_path / "val2014").mkdir()
    for key in REFERENCES:
        Image.new("RGB", (4, 4), (int(key), 0, 0)).save(tmp_path / "val2014" / f"{key}.png")
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
    return tmp_path


def test_check_counts_images_and_captions(coco_folder: Path) -> None:
    done = call("data", "check", "coco", "--data-root", coco_folder, "--format", "json")
    report = json.loads(done.out)
    assert done.code == 0 and report["ok"]
    assert report["counts"]["test"] == {"images": 1, "images present": 1, "images readable": 1, "captions": 2}


def test_check_finds_an_image_that_cannot_be_read(coco_folder: Path) -> None:
    (coco_folder / "val2014" / "8.png").write_bytes(b"no image")
    done = call("data", "check", "coco", "--data-root", coco_folder)
    assert done.code == 2 and "bad images: 1" in done.out


def test_full_must_be_full(coco_folder: Path) -> None:
    done = call("data", "check", "coco", "--data-root", coco_folder, "--full")
    assert done.code == 2 and done.err.startswith("error: ") and "113287" in done.err


@pytest.mark.slow
def test_score_as_json(tmp_path: Path) -> None:
    references, predictions = tmp_path / "references.json", tmp_path / "predictions.json"
    references.write_text(json.dumps(REFERENCES))
    predictions.write_text(json.dumps([{"image_id": int(k), "caption": v[0]} for k, v in REFERENCES.items()]))
    done = call("score", "coco", "--references", references, "--predictions", predictions, "--format", "json")
    scores = json.loads(done.out)
    assert scores["BLEU-1"]["value"] == pytest.approx(100) and scores["BLEU-1"]["n"] == 2
    assert scores["SPICE"]["value"] is not None or scores["SPICE"]["reason"]
    assert scores["counts"]["testlen"] == 8


def test_score_one_split_of_karpathys_file(coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Their programs load models for ten seconds; `test_score_as_json` runs them.
    monkeypatch.setattr("harness.evaluation.caption_metrics.meteor", lambda *_: 0.5)
    monkeypatch.setattr("harness.evaluation.caption_metrics.spice", lambda *_: [0.5])
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps([{"image_id": 7, "caption": "a red star"}]))
    arguments = ("score", "coco", "--references", coco_folder / "dataset_coco.json", "--predictions", predictions)
    done = call(*arguments, "--split", "train")
    assert done.code == 0 and "CIDEr" in done.out and "testlen" not in done.out
    other = call(*arguments, "--split", "test")
    assert other.code == 2 and other.err.startswith("error: ")
