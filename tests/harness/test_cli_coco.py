"""The command line on captions: checking a folder, scoring a file."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from harness import cli
from harness.errors import UserError

REFERENCES = {"7": ["a red star.", "one star"], "8": ["two blue hearts on gray", "hearts of blue"]}


def call(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


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


def test_check(coco_folder: Path) -> None:
    done = call("data", "check", "coco", "--data-root", coco_folder, "--format", "json")
    report = json.loads(done.stdout)
    assert done.exit_code == 0 and report["ok"]
    assert report["counts"]["test"] == {"images": 1, "images present": 1, "images readable": 1, "captions": 2}
    (coco_folder / "val2014" / "8.png").write_bytes(b"no image")
    done = call("data", "check", "coco", "--data-root", coco_folder)
    assert done.exit_code == 2 and "bad images: 1" in done.stdout


def test_full_must_be_full(coco_folder: Path) -> None:
    done = call("data", "check", "coco", "--data-root", coco_folder, "--full")
    assert isinstance(done.exception, UserError) and "113287" in str(done.exception)


def test_score(coco_folder: Path, tmp_path: Path) -> None:
    references, predictions = tmp_path / "references.json", tmp_path / "predictions.json"
    references.write_text(json.dumps(REFERENCES))
    predictions.write_text(json.dumps([{"image_id": int(k), "caption": v[0]} for k, v in REFERENCES.items()]))
    done = call(
        "score", "coco", "--references", references, "--predictions", predictions, "--format", "json"
    )  # fmt: skip
    scores = json.loads(done.stdout)
    assert scores["BLEU-1"]["value"] == pytest.approx(100) and scores["BLEU-1"]["n"] == 2
    assert scores["SPICE"]["value"] is not None or scores["SPICE"]["reason"]
    assert scores["counts"]["testlen"] == 8
    predictions.write_text(json.dumps([{"image_id": 7, "caption": "a red star"}]))
    karpathy = coco_folder / "dataset_coco.json"
    arguments = ("score", "coco", "--references", karpathy, "--predictions", predictions, "--split", "train")
    done = call(*arguments)
    assert done.exit_code == 0 and "CIDEr" in done.stdout and "testlen" not in done.stdout
    assert isinstance(call(*arguments[:-1], "test").exception, UserError)
