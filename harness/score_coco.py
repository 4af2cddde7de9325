"""Scoring saved captions in COCO's results format against references in any of three forms."""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from harness.caption_metrics import METRICS, score_captions
from harness.data.coco import read_karpathy
from harness.data.jsonio import read_json
from harness.errors import UserError
from harness.metrics import listing


def _identity(source: Path, value: Any, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    raise UserError(f"{source}: {where}: {value!r} is no image id")


def _entries(source: Path, rows: Any, what: str) -> Iterator[tuple[str, str]]:
    if not isinstance(rows, list):
        raise UserError(f"{source}: expected a list of {what}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not {"image_id", "caption"} <= row.keys():
            raise UserError(f"{source}: {what} {number}: expected an object with 'image_id' and 'caption'")
        if not isinstance(row["caption"], str):
            raise UserError(f"{source}: {what} {number} (image {row['image_id']}): the caption is not text")
        yield _identity(source, row["image_id"], f"{what} {number}"), row["caption"]


def read_references(path: Path, split: str = "test") -> dict[str, list[str]]:
    """Image id -> reference captions, from Karpathy's JSON, COCO's annotation JSON or `{image id: [captions]}`.

    Args:
        path: the file.
        split: which images of Karpathy's JSON; the other forms have no splits.

    Raises:
        UserError: none of the forms, or a bad record by its id.
    """
    raw = read_json(Path(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected Karpathy's JSON, COCO's annotations or {{image id: [captions]}}")
    references: dict[str, list[str]] = {}
    if "annotations" in raw:
        for key, caption in _entries(path, raw["annotations"], "annotation"):
            references.setdefault(key, []).append(caption)
    elif isinstance(raw.get("images"), list):
        _, records = read_karpathy(Path(path))
        for key, record in records.items():
            if record.split == split:
                references[key] = [sentence.raw for sentence in record.sentences]
    else:
        for key, captions in raw.items():
            if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
                raise UserError(f"{path}: image {key}: expected a list of captions")
            references[key] = captions
    return references


def read_captions(path: Path) -> dict[str, str]:
    """COCO's results format, a list of `{image_id, caption}`, as image id -> caption.

    Raises:
        UserError: another form, or an image twice (lists them).
    """
    pairs = list(_entries(path, read_json(Path(path)), "result"))
    count = Counter(key for key, _ in pairs)
    if twice := [key for key, times in count.items() if times > 1]:
        raise UserError(f"{path}: images with two captions: {listing(twice)}")
    return dict(pairs)


def score_coco_files(
    references: Path, predictions: Path, split: str = "test", metrics: Collection[str] = METRICS
) -> dict[str, dict[str, Any]]:
    """Score a saved set of captions.

    Args:
        references: see `read_references`.
        predictions: see `read_captions`.
        split: of Karpathy's JSON.
        metrics: of `METRICS`.

    Returns:
        metric -> {value, n, stderr, reason}, values as the COCO server prints them x 100, and `counts` ->
        {testlen, reflen, guess, correct}.

    Raises:
        UserError: a file is wrong, ids differ, or Java or the tokenizer is missing.
    """
    unknown = set(metrics) - set(METRICS)
    if unknown:
        raise UserError(f"unknown metrics {', '.join(sorted(unknown))}; known: {', '.join(METRICS)}")
    wanted, given = read_references(Path(references), split), read_captions(Path(predictions))
    try:
        scores, counts = score_captions(wanted, given, metrics)
    except UserError as error:
        raise UserError(f"{predictions}: {error}") from error
    return {**{name: score.as_dict() for name, score in scores.items()}, "counts": counts.as_dict()}
