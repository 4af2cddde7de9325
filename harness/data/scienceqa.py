"""Read and validate ScienceQA in its official layout.

The data folder contains `problems.json`, `pid_splits.json`, `images/{split}/{qid}/image.png` and, where captions are
used, `captions.json`. An optional `dataset.json`, `{"name": ..., "full": ...}`, names the set. Source: Lu et al. 2022,
https://scienceqa.github.io. The files are not trusted: the first bad record is reported by its id and field. Published
partial copies leave out metadata, so fields such as subject and grade may be missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from harness.data.dataset import DataSet, SetName, require_folder, require_official_sizes
from harness.data.imagefile import IMAGE_ADVICE, BadImage, contained
from harness.data.jsonio import read_json, repeated
from harness.data.problem import Problem, Text, parse_problem
from harness.errors import UserError, first_error

OFFICIAL_SIZES = {"train": 12_726, "val": 4_241, "test": 4_241}
BASE_SPLITS = tuple(OFFICIAL_SIZES)


class _Marker(BaseModel):
    """The content of `dataset.json`: the name of the set, and whether it is the full benchmark."""

    model_config = ConfigDict(strict=True, extra="ignore")

    name: SetName
    full: bool = False


_SPLITS = TypeAdapter(dict[str, list[str]])
_CAPTIONS = TypeAdapter(dict[str, Text])


def read_splits(path: Path, hashes: dict[str, str] | None = None) -> dict[str, list[str]]:
    """Read `pid_splits.json`.

    Args:
        path: the file.
        hashes: receives its hash, see `read_json`.

    Returns:
        split -> ids of its problems.

    Raises:
        UserError: the file does not map splits to lists of ids, an id occurs twice in a split, or an id is in two of
            the splits train, val and test.
    """
    try:
        splits = _SPLITS.validate_python(read_json(path, hashes), strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {first_error(error)}; write the file as {{split: [problem ids]}}") from error
    home: dict[str, str] = {}
    for split, qids in splits.items():
        if twice := repeated(qids):
            raise UserError(f"{path}: problem {twice[0]} is listed twice in split {split!r}; remove one of the two")
        for qid in qids if split in BASE_SPLITS else ():
            if qid in home:
                raise UserError(
                    f"{path}: problem {qid} is in two splits, {home[qid]!r} and {split!r}; remove it from one"
                )
            home[qid] = split
    return splits


def read_problems(path: Path, hashes: dict[str, str] | None = None) -> dict[str, Any]:
    """Read `problems.json` as id -> record; the records are not validated yet.

    Args:
        path: the file.
        hashes: receives its hash, see `read_json`.

    Raises:
        UserError: the file is not a JSON object.
    """
    raw = read_json(path, hashes)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: not a JSON object; write the file as {{problem id: record}}")
    return raw


def load_scienceqa(
    root: Path,
    *,
    splits: Sequence[str] = BASE_SPLITS,
    limit: int | None = None,
    captions: bool = False,
    full: bool = False,
    skip_bad_images: bool = False,
) -> DataSet[Problem]:
    """Load and validate a set in the official layout.

    Every record of the requested splits is validated. The image files of the problems within `limit` must exist, but
    they are decoded only by `DataSet.checked`. The set takes its name from `dataset.json`. Without that file it is
    named "scienceqa" if it has the official sizes, and "scienceqa-subset" otherwise.

    Args:
        root: data folder.
        splits: names of splits in `pid_splits.json`: train, val, test, or others such as minitest.
        limit: how many problems to keep per split, counted from the first; None keeps all.
        captions: read `captions.json` too.
        full: require the official sizes of the full benchmark.
        skip_bad_images: leave out problems whose image is missing or outside the data folder, and list them in
            `skipped`.

    Raises:
        UserError: the first problem found; names the file, the id and the field.
    """
    root = Path(root)
    require_folder(root, "problems.json")
    hashes: dict[str, str] = {}
    raw = read_problems(root / "problems.json", hashes)
    ids = read_splits(root / "pid_splits.json", hashes)
    texts = _read_captions(root / "captions.json", hashes) if captions else {}
    name = _name_of(root, {split: len(ids.get(split, [])) for split in BASE_SPLITS}, full, hashes)
    home = {qid: split for split in BASE_SPLITS for qid in ids.get(split, [])}
    loaded: dict[str, tuple[Problem, ...]] = {}
    skipped: list[BadImage] = []
    for split in splits:
        if split not in ids:
            raise UserError(f"{root / 'pid_splits.json'}: no split {split!r}; the file has {', '.join(ids)}")
        loaded[split] = _load_split(root, ids[split], raw, home, texts, limit, skipped if skip_bad_images else None)
    return DataSet(
        name=name,
        root=root,
        noun="problem",
        splits=loaded,
        sha256=hashes,
        split_sizes={split: len(ids[split]) for split in splits},
        skipped=tuple(skipped),
    )


def _load_split(
    root: Path,
    qids: list[str],
    raw: dict[str, Any],
    home: dict[str, str],
    captions: Mapping[str, str],
    limit: int | None,
    skipped: list[BadImage] | None,
) -> tuple[Problem, ...]:
    """Validate the records of one split and find their images.

    Args:
        root: data folder.
        qids: ids of the split's problems.
        raw: id -> record of every problem.
        home: id -> which of train, val and test the problem belongs to.
        captions: id -> caption.
        limit: how many problems to return; the records beyond it are validated all the same.
        skipped: problems with a bad image are added to it; None raises an error for the first one.
    """
    source = str(root / "problems.json")
    problems: list[Problem] = []
    base = root.resolve()
    for index, qid in enumerate(qids):
        if qid not in raw or qid not in home:
            where = "problems.json" if qid not in raw else "any of the splits train, val and test"
            raise UserError(f"{root / 'pid_splits.json'}: problem {qid} is not in {where}; add it there or remove it")
        problem = parse_problem(qid, raw[qid], home[qid], source)
        if limit is not None and index >= limit:
            continue
        try:
            image = find_image(base, problem, raw[qid].get("image"))
        except ValueError as error:
            if skipped is None:
                raise UserError(f"{source}: problem {qid}, field 'image': {error}; {IMAGE_ADVICE}") from error
            skipped.append(BadImage(qid, f"images/{problem.split}/{qid}/{raw[qid]['image']}", str(error)))
            continue
        problems.append(replace(problem, image=image, caption=captions.get(qid, "")))
    return tuple(problems)


def find_image(base: Path, problem: Problem, name: str | None) -> Path | None:
    """Return the image file of a record, `images/{split}/{qid}/{name}`, or None where the record has no image.

    Args:
        base: data folder with all links resolved.
        problem: the problem of the record; gives the split and the id.
        name: the record's `image` field.

    Raises:
        ValueError: the image is missing, not a regular file, or outside the data folder.
    """
    return None if name is None else contained(base, f"images/{problem.split}/{problem.qid}/{name}")


def _read_captions(path: Path, hashes: dict[str, str]) -> dict[str, str]:
    raw = read_json(path, hashes)
    if not isinstance(raw, dict) or "captions" not in raw:
        raise UserError(f'{path}: no captions found; write the file as {{"captions": {{problem id: text}}}}')
    try:
        return _CAPTIONS.validate_python(raw["captions"], strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {first_error(error)}; correct the caption") from error


def _name_of(root: Path, sizes: dict[str, int], full: bool, hashes: dict[str, str]) -> str:
    """Return the name of the set; raises UserError if it is declared as full but does not have the official sizes."""
    marker = None
    if (root / "dataset.json").exists():
        try:
            marker = _Marker.model_validate(read_json(root / "dataset.json", hashes))
        except ValidationError as error:
            raise UserError(f"{root / 'dataset.json'}: {first_error(error)}; correct the file") from error
    if full or (marker is not None and (marker.full or marker.name == "scienceqa")):
        require_official_sizes(root, "ScienceQA", sizes, OFFICIAL_SIZES)
    if marker is not None:
        return marker.name
    return "scienceqa" if sizes == OFFICIAL_SIZES else "scienceqa-subset"
