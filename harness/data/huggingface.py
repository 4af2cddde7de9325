"""ScienceQA in its Hugging Face form (`derek-thomas/ScienceQA`), written to the official layout.

One loader then reads both forms, with one set of checks and one hash. The Hugging Face rows carry no problem ids,
so ids are made of the split and the row's number; captions are not part of this form.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.data.problem import Problem, parse_problem
from harness.errors import UserError
from harness.files import write_atomic

DATASET = "derek-thomas/ScienceQA"
_SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
_FIELDS = (
    "question",
    "choices",
    "answer",
    "hint",
    "task",
    "grade",
    "subject",
    "topic",
    "category",
    "skill",
    "lecture",
    "solution",
)


def problem_from_row(row: Mapping[str, Any], split: str, index: int) -> Problem:
    """One row as a checked Problem, without its image.

    Args:
        row: question, choices, answer, hint, task, grade, subject, topic, category, skill, lecture, solution.
        split: train, val or test.
        index: the row's number in the split, from 0.

    Raises:
        UserError: the first bad field.
    """
    record = {field: row[field] for field in _FIELDS if row.get(field) is not None}
    return parse_problem(f"hf-{split}-{index}", record, split, source=DATASET)


def write_official(rows: Mapping[str, Iterable[Mapping[str, Any]]], root: Path) -> None:
    """Write rows to the official layout in `root`: `load_scienceqa(root)` reads them.

    Args:
        rows: split (train, validation or val, test) -> rows; an image is `{"bytes": its file}`, which is written as it
            is, to be checked by whoever loads the set, or None.
        root: folder to write to; `dataset.json` names the set and is written last.

    Raises:
        UserError: unknown split, or the first bad row.
    """
    root = Path(root)
    problems: dict[str, dict[str, Any]] = {}
    ids: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name, split_rows in rows.items():
        if name not in _SPLITS:
            raise UserError(f"{DATASET}: unknown split {name!r}; known: {', '.join(_SPLITS)}")
        split = _SPLITS[name]
        for index, row in enumerate(split_rows):
            problem = problem_from_row(row, split, index)
            image = row.get("image")
            if image is not None:
                target = root / "images" / split / problem.qid / "image.png"
                write_atomic(target, _file_of(image, problem.qid))
            record = {field: row[field] for field in _FIELDS if row.get(field) is not None}
            problems[problem.qid] = {**record, "image": None if image is None else "image.png", "split": split}
            ids[split].append(problem.qid)
    write_atomic(root / "problems.json", json.dumps(problems, indent=1))
    write_atomic(root / "pid_splits.json", json.dumps(ids))
    write_atomic(root / "dataset.json", json.dumps({"name": "scienceqa-hf"}))


def _file_of(image: Any, qid: str) -> bytes:
    content = image.get("bytes") if isinstance(image, Mapping) else None
    if not isinstance(content, bytes):
        raise UserError(f"{DATASET}: problem {qid}, field 'image': holds no bytes of a file")
    return content


def fetch(root: Path) -> None:
    """Download `derek-thomas/ScienceQA` through the `datasets` package and write it to `root`.

    Raises:
        UserError: the folder holds something, `datasets` is not installed, or the set cannot be reached.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: is there and not empty; give --data-root a new folder")
    try:
        import datasets
    except ImportError as error:
        raise UserError("the Hugging Face form needs the `datasets` package: pip install datasets") from error
    try:
        rows = datasets.load_dataset(DATASET).cast_column("image", datasets.Image(decode=False))
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{DATASET}: cannot be fetched ({reason}); take it from the data set's own page") from error
    write_official(rows, root)
