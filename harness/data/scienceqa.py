"""ScienceQA from its official layout, checked on the way in.

Layout: `problems.json`, `pid_splits.json`, `captions.json` (only when captions are asked for) and
`images/{split}/{qid}/image.png`. A `dataset.json` beside them, `{"name": ..., "full": ...}`, may name it.
Source: Lu et al. 2022, https://scienceqa.github.io. The files are hostile input: the first bad record is
named by qid and field. Published partial copies lack metadata, so subject, grade and the like may be absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from harness.data.dataset import DataSet, SetName
from harness.data.imagefile import MEND, BadImage, contained
from harness.data.jsonio import read_json
from harness.data.problem import Problem as Problem
from harness.data.problem import Text, parse_problem
from harness.errors import UserError, first_error
from harness.files import sha256_file

OFFICIAL_SIZES = {"train": 12_726, "val": 4_241, "test": 4_241}
BASE_SPLITS = tuple(OFFICIAL_SIZES)


class _Marker(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    name: SetName
    full: bool = False


_SPLITS = TypeAdapter(dict[str, list[str]])
_CAPTIONS = TypeAdapter(dict[str, Text])


def read_splits(path: Path) -> dict[str, list[str]]:
    """`pid_splits.json`: split -> ids; the base splits must not overlap.

    Raises:
        UserError: wrong shape, an id twice in a split or in two base splits.
    """
    try:
        splits = _SPLITS.validate_python(read_json(path), strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {first_error(error)}; expected {{split: [problem ids]}}") from error
    home: dict[str, str] = {}
    for split, qids in splits.items():
        if len(set(qids)) != len(qids):
            twice = next(qid for index, qid in enumerate(qids) if qid in qids[:index])
            raise UserError(f"{path}: problem {twice} is twice in split {split!r}")
        for qid in qids if split in BASE_SPLITS else ():
            if qid in home:
                raise UserError(f"{path}: problem {qid} is in two splits, {home[qid]!r} and {split!r}")
            home[qid] = split
    return splits


def read_problems(path: Path) -> dict[str, Any]:
    """`problems.json` as qid -> raw record.

    Raises:
        UserError: not a JSON object.
    """
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected an object that maps problem ids to records")
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
    """Load and check a set in the official layout.

    It is called "scienceqa" (official counts), by the name in `dataset.json`, or "scienceqa-subset". Every record of
    the asked splits is validated; for the problems within `limit` image files are looked for (not decoded: see
    `DataSet.checked`).

    Args:
        root: data folder.
        splits: names in `pid_splits.json` (train, val, test, or e.g. minitest).
        limit: at most so many problems a split, the first ones.
        captions: read `captions.json` too.
        full: the set is meant to be the full benchmark; its counts must be the official ones.
        skip_bad_images: leave out problems whose image is missing or leaves the root, and count them.

    Raises:
        UserError: the first thing that is wrong, by file, qid and field.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder; give --data-root a folder with problems.json")
    raw = read_problems(root / "problems.json")
    ids = read_splits(root / "pid_splits.json")
    texts = _read_captions(root / "captions.json") if captions else {}
    name = _name_of(root, {split: len(ids.get(split, [])) for split in BASE_SPLITS}, full)
    home = {qid: split for split in BASE_SPLITS for qid in ids.get(split, [])}
    loaded: dict[str, tuple[Problem, ...]] = {}
    skipped: list[BadImage] = []
    for split in splits:
        if split not in ids:
            raise UserError(f"{root / 'pid_splits.json'}: no split {split!r}; it has {', '.join(ids)}")
        loaded[split] = _load_split(root, ids[split], raw, home, texts, limit, skipped if skip_bad_images else None)
    files = ["problems.json", "pid_splits.json", *(["captions.json"] if captions else [])]
    files += ["dataset.json"] if (root / "dataset.json").exists() else []
    return DataSet(
        name=name,
        root=root,
        noun="problem",
        splits=loaded,
        sha256={file: sha256_file(root / file) for file in files},
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
    source = str(root / "problems.json")
    problems: list[Problem] = []
    for index, qid in enumerate(qids):
        if qid not in raw or qid not in home:
            where = "problems.json" if qid not in raw else "the splits train, val and test"
            raise UserError(f"{root / 'pid_splits.json'}: problem {qid} is not in {where}")
        problem = parse_problem(qid, raw[qid], home[qid], source)
        if limit is not None and index >= limit:
            continue
        try:
            image = find_image(root, problem, raw[qid].get("image"))
        except ValueError as error:
            if skipped is None:
                raise UserError(f"{source}: problem {qid}, field 'image': {error}; {MEND}") from error
            skipped.append(BadImage(qid, f"images/{problem.split}/{qid}/{raw[qid]['image']}", str(error)))
            continue
        problems.append(replace(problem, image=image, caption=captions.get(qid, "")))
    return tuple(problems)


def find_image(root: Path, problem: Problem, name: str | None) -> Path | None:
    """The image file of a record, `images/{split}/{qid}/{name}`, or None.

    Raises:
        ValueError: missing, not a file, or outside the root.
    """
    return None if name is None else contained(root, f"images/{problem.split}/{problem.qid}/{name}")


def _read_captions(path: Path) -> dict[str, str]:
    raw = read_json(path)
    if not isinstance(raw, dict) or "captions" not in raw:
        raise UserError(f'{path}: expected {{"captions": {{problem id: text}}}}')
    try:
        return _CAPTIONS.validate_python(raw["captions"], strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {first_error(error)}") from error


def _name_of(root: Path, sizes: dict[str, int], full: bool) -> str:
    marker = None
    if (root / "dataset.json").exists():
        try:
            marker = _Marker.model_validate(read_json(root / "dataset.json"))
        except ValidationError as error:
            raise UserError(f"{root / 'dataset.json'}: {first_error(error)}") from error
    official = sizes == OFFICIAL_SIZES
    claims_full = full or (marker is not None and (marker.full or marker.name == "scienceqa"))
    if claims_full and not official:
        have = ", ".join(f"{split} {count}" for split, count in sizes.items())
        want = ", ".join(f"{split} {count}" for split, count in OFFICIAL_SIZES.items())
        raise UserError(f"{root}: calls itself the full ScienceQA but has {have}; the full set has {want}")
    if marker is not None:
        return marker.name
    return "scienceqa" if official else "scienceqa-subset"
