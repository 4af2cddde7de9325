"""Scoring saved captions, in COCO's results format or a run's own, against references in any of four forms."""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from harness.data.coco import read_karpathy
from harness.data.jsonio import read_json, read_json_lines
from harness.errors import UserError
from harness.evaluation.caption_metrics import METRICS, score_captions
from harness.evaluation.scienceqa_metrics import listing


def _identity(where: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    raise UserError(f"{where}: {value!r} is no image id")


def _entries(source: Path, rows: Any, what: str) -> Iterator[tuple[str, str]]:
    if not isinstance(rows, list):
        raise UserError(f"{source}: expected a list of {what}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not {"image_id", "caption"} <= row.keys():
            raise UserError(f"{source}: {what} {number}: expected an object with 'image_id' and 'caption'")
        if not isinstance(row["caption"], str):
            raise UserError(f"{source}: {what} {number} (image {row['image_id']}): the caption is not text")
        yield _identity(f"{source}: {what} {number}", row["image_id"]), row["caption"]


def read_references(path: Path, split: str = "test") -> dict[str, list[str]]:
    """Image id -> reference captions.

    From Karpathy's JSON, COCO's annotation JSON, `{image id: [captions]}`, or a run's `.jsonl`, which holds what its
    captions were scored against.

    Args:
        path: the file.
        split: which images of Karpathy's JSON; the other forms have no splits.

    Raises:
        UserError: none of the forms, or a bad record by its id.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        return _references_of_a_run(path)
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected Karpathy's JSON, COCO's annotations or {{image id: [captions]}}")
    references: dict[str, list[str]] = {}
    if "annotations" in raw:
        for key, caption in _entries(path, raw["annotations"], "annotation"):
            references.setdefault(key, []).append(caption)
    elif isinstance(raw.get("images"), list):
        _, records = read_karpathy(path)
        for key, record in records.items():
            if record.split == split:
                references[key] = [sentence.raw for sentence in record.sentences]
    else:
        for key, captions in raw.items():
            references[key] = _captions(f"{path}: image {key}", captions)
    return references


def _references_of_a_run(path: Path) -> dict[str, list[str]]:
    references: dict[str, list[str]] = {}
    for place, row in read_json_lines(path):
        if not isinstance(row, dict) or not {"image_id", "references"} <= row.keys():
            raise UserError(f"{place}: expected an object with 'image_id' and 'references'")
        references[_identity(place, row["image_id"])] = _captions(place, row["references"])
    return references


def _captions(where: str, captions: Any) -> list[str]:
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise UserError(f"{where}: expected a list of captions")
    return captions


def read_captions(path: Path) -> dict[str, str]:
    """COCO's results format, a list of `{image_id, caption}`, or a run's `.jsonl` of them, as image id -> caption.

    Raises:
        UserError: another form, or an image twice (lists them).
    """
    path = Path(path)
    rows = [row for _, row in read_json_lines(path)] if path.suffix == ".jsonl" else read_json(path)
    pairs = list(_entries(path, rows, "result"))
    count = Counter(key for key, _ in pairs)
    if twice := [key for key, times in count.items() if times > 1]:
        raise UserError(f"{path}: images with two captions: {listing(twice)}")
    return dict(pairs)


def score_coco_files(
    references: Path,
    predictions: Path,
    split: str = "test",
    metrics: Collection[str] = METRICS,
    only_predicted: bool = False,
) -> dict[str, dict[str, Any]]:
    """Score a saved set of captions.

    Args:
        references: see `read_references`.
        predictions: see `read_captions`.
        split: of Karpathy's JSON.
        metrics: of `METRICS`.
        only_predicted: score the images that have a caption and leave the others out; otherwise each must have one.

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
    hint = ""
    if only_predicted:
        wanted = {key: captions for key, captions in wanted.items() if key in given}
    elif not given.keys() >= wanted.keys():
        hint = "; to leave out images without a caption, give --only-predicted"
    try:
        scores, counts = score_captions(wanted, given, metrics)
    except UserError as error:
        raise UserError(f"{predictions}: {error}{hint}") from error
    return {**{name: score.as_dict() for name, score in scores.items()}, "counts": counts.as_dict()}
