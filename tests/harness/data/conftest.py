"""Fixtures of the data tests: small valid data sets on disk, which a test can change and write again."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.data import jsonio
from harness.files import read_file


def record(split: str, answer: int = 0, with_image: bool = False, **changes: Any) -> dict[str, Any]:
    """Return a valid record of `problems.json` with some fields changed."""
    return {
        "question": "Which is a solid?",
        "choices": ["water", "ice", "steam"],
        "answer": answer,
        "hint": "Read this.",
        "image": "image.png" if with_image else None,
        "task": "closed choice",
        "grade": "grade4",
        "subject": "natural science",
        "topic": "physics",
        "category": "Matter",
        "skill": "Classify",
        "lecture": "Solids keep shape.",
        "solution": "Ice is a solid.",
        "split": split,
        **changes,
    }


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every JSON file is emptied once it has been read. File name -> the hash of the bytes that were read."""
    hashes: dict[str, str] = {}

    def read(path: Path) -> bytes:
        content = read_file(path)
        hashes[path.name] = hashlib.sha256(content).hexdigest()
        path.write_bytes(b"")
        return content

    monkeypatch.setattr(jsonio, "read_file", read)
    return hashes


class ScienceQAFolder:
    """A data folder in the official layout of ScienceQA."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: dict[str, Any] = {
            "1": record("train", 1, with_image=True),
            "2": record("train", 0, question="Second?"),
            "3": record("val", 2, question="Third?"),
            "4": record("test", 1, with_image=True, question="Fourth?"),
            "10": record("test", 0, question="Tenth?", subject="language science", hint="", grade="grade9"),
        }
        self.splits: dict[str, Any] = {"train": ["2", "1"], "val": ["3"], "test": ["4", "10"], "minitest": ["10"]}
        self.write()
        for qid, split in (("1", "train"), ("4", "test")):
            self.image_path(split, qid).parent.mkdir(parents=True)
            Image.new("RGB", (8, 6), (200, 10, int(qid))).save(self.image_path(split, qid))

    record = staticmethod(record)

    def image_path(self, split: str, qid: str) -> Path:
        return self.root / "images" / split / qid / "image.png"

    def write(self) -> None:
        (self.root / "problems.json").write_text(json.dumps(self.problems))
        (self.root / "pid_splits.json").write_text(json.dumps(self.splits))


class CocoFolder:
    """A data folder with four images in Karpathy's form."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = [self.entry(n, s) for n, s in enumerate(("train", "restval", "val", "test"), 1)]
        (root / "val2014").mkdir()
        for number in range(1, 5):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(self.image_path(number))
        self.write()

    @staticmethod
    def entry(number: int, split: str) -> dict[str, Any]:
        return {
            "filepath": "val2014",
            "filename": f"{number}.png",
            "split": split,
            "cocoid": number,
            "imgid": number - 1,
            "sentences": [{"raw": f"A {number}.", "tokens": ["a", str(number)]}, {"raw": "Another."}],
        }

    def image_path(self, number: int) -> Path:
        return self.root / "val2014" / f"{number}.png"

    def write(self, dataset: Any = "coco") -> None:
        text = json.dumps({"dataset": dataset, "images": self.images})
        (self.root / "dataset_coco.json").write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> ScienceQAFolder:
    """A small valid ScienceQA set on disk."""
    return ScienceQAFolder(tmp_path)


@pytest.fixture
def coco_folder(tmp_path: Path) -> CocoFolder:
    """A small valid caption set on disk."""
    return CocoFolder(tmp_path)
