"""Fixtures of the data tests: a small set in the official layout, to break."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def record(split: str, answer: int = 0, with_image: bool = False, **changes: Any) -> dict[str, Any]:
    """One valid record, with changes."""
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


class Folder:
    """A data folder that can be changed and written again."""

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


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A small valid set on disk."""
    return Folder(tmp_path)
