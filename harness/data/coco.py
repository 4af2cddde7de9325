"""COCO Captions in Karpathy's form: one JSON with images, their splits and sentences, beside the image folders.

Layout: `dataset_coco.json` and `{filepath}/{filename}` (`train2014/...`, `val2014/...`), directly in the data folder
or under its `images/`. Source: Karpathy and Fei-Fei 2015. Training takes `train` and `restval`. The file is hostile
input: the first bad record is named by its id and field.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.data.imagefile import BadImage, contained, leave_out
from harness.data.jsonio import read_json
from harness.data.problem import NonEmpty, first_error
from harness.errors import UserError
from harness.files import sha256_file, sha256_of_files

OFFICIAL_SIZES = {"train": 113_287, "val": 5_000, "test": 5_000}
ANNOTATIONS = "dataset_coco.json"
_PARTS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}


@dataclass(frozen=True, slots=True)
class CaptionImage:
    """One image with its reference captions; `qid` is the COCO image id as text."""

    qid: str
    split: str
    image: Path
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CocoCaptions:
    """A loaded set.

    Attributes:
        name: "coco" (official counts), the `dataset` field of the file if it is another one, or "coco-subset".
        root: the data folder.
        images: split (train holds restval) -> images in file order, cut by `limit`, without skipped ones.
        sha256: file name -> hash of each JSON file read.
        split_sizes: split -> number of images in the file, before any limit.
        skipped: images left out because their file is bad.
    """

    name: str
    root: Path
    images: Mapping[str, tuple[CaptionImage, ...]]
    sha256: Mapping[str, str]
    split_sizes: Mapping[str, int]
    skipped: tuple[BadImage, ...] = ()

    @property
    def data_hash(self) -> str:
        """One SHA-256 over the hashes of the files read."""
        return sha256_of_files(self.sha256)

    @property
    def used_sizes(self) -> dict[str, int]:
        """split -> number of images in `images`."""
        return {split: len(images) for split, images in self.images.items()}

    def all_images(self) -> list[CaptionImage]:
        """Every loaded image, split by split."""
        return [image for images in self.images.values() for image in images]

    def without(self, bad: Iterable[BadImage]) -> "CocoCaptions":
        """The set without the images of `bad`, which are added to `skipped`."""
        bad = tuple(bad)
        return replace(self, images=leave_out(self.images, bad), skipped=(*self.skipped, *bad))


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
        UserError: wrong shape, the first bad record, or an image id twice.
    """
    raw = read_json(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("images"), list):
        raise UserError(f'{path}: expected Karpathy\'s form, {{"images": [...], "dataset": ...}}')
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
    return str(raw.get("dataset", "coco")), records


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
) -> CocoCaptions:
    """Load and check a caption set; image files are looked for, not decoded (see `check_images`).

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
    return CocoCaptions(
        name=_name(root, dataset, sizes, full),
        root=root,
        images=loaded,
        sha256={ANNOTATIONS: sha256_file(root / ANNOTATIONS)},
        split_sizes={split: sizes[split] for split in splits},
        skipped=tuple(skipped),
    )


def _find(root: Path, split: str, qid: str, record: _Image, skipped: list[BadImage], skip: bool) -> CaptionImage | None:
    relative = "/".join(part for part in (record.filepath, record.filename) if part)
    inner = root / "images"
    base = f"images/{relative}" if inner.is_dir() and not (root / relative).exists() else relative
    try:
        path = contained(root, base)
    except ValueError as error:
        if not skip:
            where = f"{root / ANNOTATIONS}: image {qid}, field 'filename'"
            raise UserError(f"{where}: {error}; mend it or pass --skip-bad-images") from error
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
