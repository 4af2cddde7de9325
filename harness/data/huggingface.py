"""Download ScienceQA in its Hugging Face form (`derek-thomas/ScienceQA`) and convert it to the official layout.

One loader then reads both forms, with the same checks and the same hashes. The Hugging Face rows have no problem ids,
so an id is made from the split and the row number. This form has no captions.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.data.problem import Problem, parse_problem
from harness.data.scienceqa import load_scienceqa
from harness.disk import require_space
from harness.errors import UserError, foreign
from harness.files import new_folder, write_atomic
from harness.hub import Source, download
from harness.streams import Say

DATASET = "derek-thomas/ScienceQA"
SOURCE = Source(
    "ScienceQA",
    DATASET,
    ("data/*.parquet",),
    "run `python -m harness data fetch scienceqa` where there is a network, or give a folder in the official layout "
    "with --data-root DIR",
    kind="dataset",
    size=626_000_000,
    licence="CC BY-NC-SA 4.0 by its authors' page, but cc-by-sa-4.0 by its card on the hub",
)
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


def write_official(rows: Mapping[str, Iterable[Mapping[str, Any]]], root: Path, full: bool = False) -> None:
    """Write rows to `root` in the official layout, which `load_scienceqa` reads.

    Args:
        rows: split (train, validation or val, test) -> rows. The image of a row is None or `{"bytes": content of the
            file}`. Its content is written unchanged; loading the set checks it.
        root: folder to write to. `dataset.json`, which names the set, is written last.
        full: declare the set as the full benchmark, whose size is then checked each time that it is read.

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
    write_atomic(root / "dataset.json", json.dumps({"name": "scienceqa-hf", "full": full}))


def _image_bytes(image: object, qid: str) -> bytes:
    """Return the content of the image file in a row; raises UserError if the row does not contain it."""
    content = image.get("bytes") if isinstance(image, Mapping) else None
    if not isinstance(content, bytes):
        raise UserError(
            f"{DATASET}: problem {qid}, field 'image': has no file content; cast the column to Image(decode=False)"
        )
    return content


def fetch_scienceqa(root: Path, say: Say) -> None:
    """Download `derek-thomas/ScienceQA` and write it to `root` in the official layout.

    Args:
        root: a folder that does not exist yet, or an empty one.
        say: called with lines on what happens.

    Raises:
        UserError: the folder is not empty or cannot be written, the download fails, or the set is not complete.
    """
    import datasets  # takes seconds, and a run whose data is here does not need it

    with new_folder(root) as folder:
        files: dict[str, list[str]] = {}
        for path in download(SOURCE, say):
            files.setdefault(path.name.partition("-")[0], []).append(str(path))
        say(f"writing ScienceQA to {root}")
        size = sum(Path(path).stat().st_size for paths in files.values() for path in paths)
        require_space(size, folder, "run `python -m harness data fetch scienceqa --data-root DIR` with another disk")
        with foreign(f"{SOURCE.address}: cannot be read", SOURCE.remedy):
            # Rows are read as they are needed, so that the set is not copied into yet another cache.
            rows = datasets.load_dataset("parquet", data_files=files, streaming=True)
            undecoded = rows.cast_column("image", datasets.Image(decode=False))
        write_official({split: _readable(undecoded[split]) for split in files}, folder, full=True)
        load_scienceqa(folder, full=True)


def _readable(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield rows that are read from a file only now.

    Raises:
        UserError: the file cannot be read.
    """
    with foreign(f"{SOURCE.address}: cannot be read", SOURCE.remedy):
        yield from rows
