"""Convert ScienceQA from its Hugging Face form (`derek-thomas/ScienceQA`) to the official layout.

One loader then reads both forms, with the same checks and the same hashes. The Hugging Face rows have no problem ids,
so an id is made from the split and the row number. This form has no captions.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.data.problem import Problem, parse_problem
from harness.errors import UserError, foreign
from harness.files import write_atomic

DATASET = "derek-thomas/ScienceQA"
FIRST_WITHOUT_SCRIPTS = 4
"""The first version of `datasets` that never runs a script which comes with a data set."""
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
    """Validate one row and return it as a Problem without its image.

    Args:
        row: field name -> value; fields other than those of a ScienceQA record are ignored.
        split: train, val or test.
        index: number of the row in its split, from 0.

    Raises:
        UserError: a field is wrong; names the first one.
    """
    return parse_problem(f"hf-{split}-{index}", _record(row), split, source=DATASET)


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a row that belong to a ScienceQA record and have a value, without the image."""
    return {field: row[field] for field in _FIELDS if row.get(field) is not None}


def write_official(rows: Mapping[str, Iterable[Mapping[str, Any]]], root: Path) -> None:
    """Write rows to `root` in the official layout, which `load_scienceqa` reads.

    Args:
        rows: split (train, validation or val, test) -> rows. The image of a row is None or `{"bytes": content of the
            file}`. Its content is written unchanged; loading the set checks it.
        root: folder to write to. `dataset.json`, which names the set, is written last.

    Raises:
        UserError: a split is unknown, a row is wrong, or a file cannot be written.
    """
    root = Path(root)
    problems: dict[str, dict[str, Any]] = {}
    ids: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name, split_rows in rows.items():
        if name not in _SPLITS:
            raise UserError(f"{DATASET}: unknown split {name!r}; give one of {', '.join(_SPLITS)}")
        split = _SPLITS[name]
        for index, row in enumerate(split_rows):
            problem = problem_from_row(row, split, index)
            image = row.get("image")
            if image is not None:
                target = root / "images" / split / problem.qid / "image.png"
                write_atomic(target, _image_bytes(image, problem.qid))
            image_name = None if image is None else "image.png"
            problems[problem.qid] = {**_record(row), "image": image_name, "split": split}
            ids[split].append(problem.qid)
    write_atomic(root / "problems.json", json.dumps(problems, indent=1))
    write_atomic(root / "pid_splits.json", json.dumps(ids))
    write_atomic(root / "dataset.json", json.dumps({"name": "scienceqa-hf"}))


def _image_bytes(image: object, qid: str) -> bytes:
    """Return the content of the image file in a row; raises UserError if the row does not contain it."""
    content = image.get("bytes") if isinstance(image, Mapping) else None
    if not isinstance(content, bytes):
        raise UserError(
            f"{DATASET}: problem {qid}, field 'image': has no file content; cast the column to Image(decode=False)"
        )
    return content


def fetch(root: Path) -> None:
    """Download `derek-thomas/ScienceQA` with the `datasets` package and write it to `root` in the official layout.

    Raises:
        UserError: the folder is not empty, `datasets` is not installed or too old, or the download fails.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: exists and is not an empty folder; give --data-root a new folder")
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "the Hugging Face form needs the package `datasets`, which is not installed: pip install datasets"
        ) from error
    if int(datasets.__version__.partition(".")[0]) < FIRST_WITHOUT_SCRIPTS:
        raise UserError(
            f"datasets {datasets.__version__}: can run code that comes with a data set; pip install 'datasets>=4'"
        )
    with foreign(f"{DATASET}: cannot be downloaded", "download the official layout from https://scienceqa.github.io"):
        rows = datasets.load_dataset(DATASET).cast_column("image", datasets.Image(decode=False))
    write_official(rows, root)
