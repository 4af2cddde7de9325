"""ScienceQA in its Hugging Face form (`derek-thomas/ScienceQA`), written to the official layout.

One loader then reads both forms, with one set of checks and one hash. The Hugging Face rows carry no problem ids,
so ids are made of the split and the row's number; captions are not part of this form.
"""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.data.imagefile import to_rgb
from harness.data.problem import Problem, parse_problem
from harness.errors import UserError
from harness.files import write_atomic

DATASET = "derek-thomas/ScienceQA"
_SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
_FIELDS = (
    "question choices answer hint task grade subject topic category skill lecture solution".split()  # noqa: SIM905
)


def problem_from_row(row: Mapping[str, Any], split: str, index: int) -> Problem:
    """One row as a checked Problem; its image, a PIL object in the row, is not part of it.

    Args:
        row: question, choices, answer, hint, task, grade, subject, topic, category, skill, lecture, solution, image.
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
        rows: split (train, validation or val, test) -> rows; images are PIL objects or None.
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
                write_atomic(target, _png(image, problem.qid))
            record = {field: row[field] for field in _FIELDS if row.get(field) is not None}
            problems[problem.qid] = {**record, "image": image and "image.png", "split": split}
            ids[split].append(problem.qid)
    write_atomic(root / "problems.json", json.dumps(problems, indent=1))
    write_atomic(root / "pid_splits.json", json.dumps(ids))
    write_atomic(root / "dataset.json", json.dumps({"name": "scienceqa-hf"}))


def _png(image: Any, qid: str) -> bytes:
    buffer = io.BytesIO()
    try:
        to_rgb(image).save(buffer, format="PNG")
    except (OSError, SyntaxError, ValueError, AttributeError) as error:
        raise UserError(f"{DATASET}: problem {qid}, field 'image': {error}") from error
    return buffer.getvalue()


def fetch(root: Path) -> None:
    """Download `derek-thomas/ScienceQA` through the `datasets` package and write it to `root`.

    Raises:
        UserError: `datasets` is not installed, or the hub cannot be reached.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError("the Hugging Face form needs the `datasets` package: pip install datasets") from error
    try:
        rows = datasets.load_dataset(DATASET)
    except (OSError, ValueError) as error:
        raise UserError(f"{DATASET}: cannot be fetched ({error}); give --data-root a folder instead") from error
    write_official(rows, root)
