"""COCO Captions in Karpathy's form: one JSON with images, their splits and sentences, beside the image folders.

Layout: `dataset_coco.json` and `{filepath}/{filename}` (`train2014/...`, `val2014/...`), directly in the data folder
or under its `images/`. Source: Karpathy and Fei-Fei 2015. Training takes `train` and `restval`. The file is hostile
input: the first bad record is named by its id and field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from harness.data.dataset import DataSet, SetName
from harness.data.imagefile import MEND, BadImage, check_relative, contained
from harness.data.jsonio import read_json
from harness.data.problem import NonEmpty
from harness.errors import UserError, first_error
from harness.files import sha256_file

OFFICIAL_SIZES = {"train": 113_287, "val": 5_000, "test": 5_000}
ANNOTATIONS = "dataset_coco.json"
_NAME = TypeAdapter(SetName)
_PARTS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}


@dataclass(frozen=True, slots=True)
class CaptionImage:
    """One image with its reference captions; `qid` is the COCO image id as text."""

    qid: str
    split: str
    image: Path
    captions: tuple[str, ...]


class _Sentence(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    raw: NonEmpty


class _Image(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    filename: Annotated[str, Field(min_length=1, max_length=255)]
    filepath: Annotated[str, Field(max_length=255)] = ""
    split: Literal["train", "restval", "val", "test"]
    cocoid: Annotated[int, Field(ge=0)] | None = None
    imgid: Annotated[int, Field(ge=0)] | None = None
    sentences: Annotated[list[_Sentence], Field(min_length=1)]

    @property
    def identity(self) -> str | None:
        number = self.imgid if self.cocoid is None else self.cocoid
        return None if number is None else str(number)


def read_karpathy(path: Path) -> tuple[str, dict[str, _Image]]:
    """The file's `dataset` name, and image id -> checked record.

    The id is `cocoid`, or `imgid` where there is none.

    Raises:
        UserError: wrong shape, a bad `dataset` name, the first bad record, or an image id twice.
    """
    raw = read_json(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("images"), list):
        raise UserError(f'{path}: expected Karpathy\'s form, {{"images": [...], "dataset": ...}}')
    try:
        name = _NAME.validate_python(raw.get("dataset", "coco"), strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: field 'dataset': {first_error(error)}") from error
    records: dict[str, _Image] = {}
    for index, entry in enumerate(raw["images"]):
        try:
            record = _Image.model_validate(entry)
        except ValidationError as error:
            raise UserError(f"{path}: {_where(entry, index)}, {first_error(error)}") from error
        if record.identity is None:
            raise UserError(f"{path}: {_where(entry, index)}, field 'cocoid': missing, and no 'imgid'")
        if record.identity in records:
            raise UserError(f"{path}: image {record.identity} is there twice")
        records[record.identity] = record
    return name, records


def _where(entry: Any, index: int) -> str:
    number = entry.get("cocoid", entry.get("imgid")) if isinstance(entry, dict) else None
    return f"image {number}" if isinstance(number, int) else f"image number {index + 1} in the file"


def load_coco(
    root: Path,
    *,
    splits: Sequence[str] = tuple(_PARTS),
    limit: int | None = None,
    full: bool = False,
    skip_bad_images: bool = False,
) -> DataSet[CaptionImage]:
    """Load and check a caption set; image files are looked for, not decoded (see `DataSet.checked`).

    It is called "coco" (official counts), as the `dataset` field of the file if that is another name, or "coco-subset".
    The split train holds restval.

    Args:
        root: data folder with `dataset_coco.json`.
        splits: of train, val, test.
        limit: at most so many images a split, the first ones.
        full: the set is meant to be all of COCO; its counts must be the official ones.
        skip_bad_images: leave out images whose file is missing or outside the root, and count them.

    Raises:
        UserError: the first thing that is wrong, by file, image and field.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder; give --data-root a folder with {ANNOTATIONS}")
    dataset, records = read_karpathy(root / ANNOTATIONS)
    sizes = {split: sum(r.split in parts for r in records.values()) for split, parts in _PARTS.items()}
    loaded: dict[str, tuple[CaptionImage, ...]] = {}
    skipped: list[BadImage] = []
    for split in splits:
        if split not in _PARTS:
            raise UserError(f"{root}: no split {split!r}; COCO Captions has {', '.join(_PARTS)}")
        members = [(qid, record) for qid, record in records.items() if record.split in _PARTS[split]]
        images = [_find(root, split, *member, skipped, skip_bad_images) for member in members[:limit]]
        loaded[split] = tuple(image for image in images if image is not None)
    return DataSet(
        name=_name(root, dataset, sizes, full),
        root=root,
        noun="image",
        splits=loaded,
        sha256={ANNOTATIONS: sha256_file(root / ANNOTATIONS)},
        split_sizes={split: sizes[split] for split in splits},
        skipped=tuple(skipped),
    )


def _find(root: Path, split: str, qid: str, record: _Image, skipped: list[BadImage], skip: bool) -> CaptionImage | None:
    relative = "/".join(part for part in (record.filepath, record.filename) if part)
    try:
        check_relative(relative)
        inner = (root / "images").is_dir() and not (root / relative).exists()
        path = contained(root, f"images/{relative}" if inner else relative)
    except ValueError as error:
        if not skip:
            where = f"{root / ANNOTATIONS}: image {qid}, field 'filename'"
            raise UserError(f"{where}: {error}; {MEND}") from error
        skipped.append(BadImage(qid, relative, str(error)))
        return None
    return CaptionImage(qid, split, path, tuple(sentence.raw for sentence in record.sentences))


def _name(root: Path, dataset: str, sizes: dict[str, int], full: bool) -> str:
    official = sizes == OFFICIAL_SIZES
    if full and not official:
        have = ", ".join(f"{split} {count}" for split, count in sizes.items())
        want = ", ".join(f"{split} {count}" for split, count in OFFICIAL_SIZES.items())
        raise UserError(f"{root}: meant to be all of COCO Captions but has {have}; the full set has {want}")
    if dataset != "coco":
        return dataset
    return "coco" if official else "coco-subset"
