"""Read COCO Captions in Karpathy's form: one JSON file with images, their splits and sentences.

The data folder contains `dataset_coco.json` and the image files `{filepath}/{filename}` (`train2014/...`,
`val2014/...`), which may also be under `images/`. Source: Karpathy and Fei-Fei 2015. The training split joins the
file's `train` and `restval`. The file is not trusted: the first bad record is reported by its id and field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from harness.data.dataset import DataSet, SetName, require_folder, require_official_sizes
from harness.data.imagefile import IMAGE_ADVICE, BadImage, check_relative, contained
from harness.data.jsonio import read_json
from harness.data.problem import NonEmpty
from harness.errors import UserError, first_error

OFFICIAL_SIZES = {"train": 113_287, "val": 5_000, "test": 5_000}
ANNOTATIONS = "dataset_coco.json"
_NAME = TypeAdapter(SetName)
_PARTS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
"""Split of this project -> the splits of the file that it joins."""


def parts_of(split: str, where: str) -> tuple[str, ...]:
    """Return which splits of the file a split of this project joins: train joins `train` and `restval`.

    Args:
        split: train, val or test.
        where: what the message begins with.

    Raises:
        UserError: there is no such split.
    """
    if split not in _PARTS:
        raise UserError(f"{where}: no split {split!r}; give one of {', '.join(_PARTS)}")
    return _PARTS[split]


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
        """`cocoid` as text, or `imgid` where there is no `cocoid`."""
        number = self.imgid if self.cocoid is None else self.cocoid
        return None if number is None else str(number)


def read_karpathy(path: Path, hashes: dict[str, str] | None = None) -> tuple[str, dict[str, _Image]]:
    """Read and validate a file in Karpathy's form.

    Args:
        path: the JSON file.
        hashes: receives the hash of the file, see `read_json`.

    Returns:
        the file's `dataset` name ("coco" if it has none), and image id -> validated record. The id is `cocoid`, or
        `imgid` where there is no `cocoid`.

    Raises:
        UserError: the file is not in this form, its `dataset` name or a record is invalid, or an image id occurs twice.
    """
    raw = read_json(path, hashes)
    if not isinstance(raw, dict) or not isinstance(raw.get("images"), list):
        raise UserError(f'{path}: expected Karpathy\'s form, {{"images": [...], "dataset": ...}}; give such a file')
    try:
        name = _NAME.validate_python(raw.get("dataset", "coco"), strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: field 'dataset': {first_error(error)}; correct the name") from error
    records: dict[str, _Image] = {}
    for index, entry in enumerate(raw["images"]):
        try:
            record = _Image.model_validate(entry)
        except ValidationError as error:
            raise UserError(
                f"{path}: {_record_label(entry, index)}, {first_error(error)}; correct the record"
            ) from error
        if record.identity is None:
            label = _record_label(entry, index)
            raise UserError(f"{path}: {label}, field 'cocoid': missing, and so is 'imgid'; give the image one of them")
        if record.identity in records:
            raise UserError(f"{path}: image {record.identity} occurs twice; remove one of the two records")
        records[record.identity] = record
    return name, records


def _record_label(entry: object, index: int) -> str:
    """Return the name of a record in messages: its id, or its position in the file if it has no usable id."""
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
    """Load and validate a caption set.

    Image files must exist, but they are decoded only by `DataSet.checked`. The split train includes restval. The set
    takes its name from the file's `dataset` field. Where that is "coco", a set with other than the official sizes is
    named "coco-subset".

    Args:
        root: data folder with `dataset_coco.json`.
        splits: any of train, val and test.
        limit: how many images to keep per split, counted from the first; None keeps all.
        full: require the official sizes of COCO Captions.
        skip_bad_images: leave out images whose file is missing or outside the data folder, and list them in `skipped`.

    Raises:
        UserError: the first problem found; names the file, the image and the field.
    """
    root = Path(root)
    require_folder(root, ANNOTATIONS)
    hashes: dict[str, str] = {}
    dataset, records = read_karpathy(root / ANNOTATIONS, hashes)
    sizes = {split: sum(r.split in parts for r in records.values()) for split, parts in _PARTS.items()}
    if full:
        require_official_sizes(root, "COCO Captions", sizes, OFFICIAL_SIZES)
    loaded: dict[str, tuple[CaptionImage, ...]] = {}
    base = root.resolve()
    skipped: list[BadImage] = []
    for split in splits:
        parts = parts_of(split, str(root))
        members = [(qid, record) for qid, record in records.items() if record.split in parts]
        images = [_find_image(root, base, split, *member, skipped, skip_bad_images) for member in members[:limit]]
        loaded[split] = tuple(image for image in images if image is not None)
    return DataSet(
        name="coco-subset" if dataset == "coco" and sizes != OFFICIAL_SIZES else dataset,
        root=root,
        noun="image",
        splits=loaded,
        sha256=hashes,
        split_sizes={split: sizes[split] for split in splits},
        skipped=tuple(skipped),
    )


def _find_image(
    root: Path, base: Path, split: str, qid: str, record: _Image, skipped: list[BadImage], skip_bad: bool
) -> CaptionImage | None:
    """Return a record with its image file, or add it to `skipped` and return None where `skip_bad` allows that."""
    relative = "/".join(part for part in (record.filepath, record.filename) if part)
    try:
        check_relative(relative)
        under_images = (root / "images").is_dir() and not (root / relative).exists()
        path = contained(base, f"images/{relative}" if under_images else relative)
    except ValueError as error:
        if not skip_bad:
            label = f"{root / ANNOTATIONS}: image {qid}, field 'filename'"
            raise UserError(f"{label}: {error}; {IMAGE_ADVICE}") from error
        skipped.append(BadImage(qid, relative, str(error)))
        return None
    return CaptionImage(qid, split, path, tuple(sentence.raw for sentence in record.sentences))
