"""Score saved captions, in COCO's results format or as a run saves them, against references in any of four formats."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.data.coco import parts_of, read_karpathy
from harness.data.jsonio import read_json_or_lines, repeated
from harness.errors import UserError
from harness.evaluation.caption_metrics import METRICS, check_ids, score_captions
from harness.evaluation.ids import listing


def _image_id(where: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    raise UserError(f"{where}: {value!r} is no image id; give an integer or text")


def _entries(source: Path, rows: Any, what: str) -> Iterator[tuple[str, str]]:
    if not isinstance(rows, list):
        raise UserError(f"{source}: expected a list, with one object per {what}; correct the file")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not {"image_id", "caption"} <= row.keys():
            raise UserError(f"{source}: {what} {number}: expected an object with 'image_id' and 'caption'; add them")
        if not isinstance(row["caption"], str):
            where = f"{source}: {what} {number} (image {row['image_id']})"
            raise UserError(f"{where}: the caption is not text; give a string")
        yield _image_id(f"{source}: {what} {number}", row["image_id"]), row["caption"]


def _value_or_records(path: Path) -> tuple[Any, list[tuple[str, Any]] | None]:
    """Return the JSON value in a file and None, or None and the records of a run with their places."""
    value, lines = read_json_or_lines(path)
    if isinstance(value, dict) and "image_id" in value:  # a run on one image
        return None, [(str(path), value)]
    return value, lines


def read_references(path: Path, split: str = "test") -> dict[str, list[str]]:
    """Read reference captions.

    The file is Karpathy's JSON, COCO's annotation JSON, `{image id: [captions]}`, or the predictions of a run
    (one JSON object per line), which contain the references that its captions were scored against. The name of the file
    does not matter.

    Args:
        path: the file.
        split: which images to take from Karpathy's JSON, see `harness.data.coco.parts_of`; the other formats have no
            splits.

    Returns:
        Image id -> captions.

    Raises:
        UserError: the file is in none of these formats, a record has an error (the message names it), a run has an
            image twice, or Karpathy's JSON has no such split.
    """
    path = Path(path)
    raw, records = _value_or_records(path)
    if records is not None:
        return _references_of_a_run(path, records)
    if not isinstance(raw, dict):
        raise UserError(
            f"{path}: expected Karpathy's JSON, COCO's annotations or {{image id: [captions]}}; give such a file"
        )
    references: dict[str, list[str]] = {}
    if "annotations" in raw:
        for key, caption in _entries(path, raw["annotations"], "annotation"):
            references.setdefault(key, []).append(caption)
    elif isinstance(raw.get("images"), list):
        parts = parts_of(split, f"--split {split}")
        for key, record in read_karpathy(path)[1].items():
            if record.split in parts:
                references[key] = [sentence.raw for sentence in record.sentences]
    else:
        for key, captions in raw.items():
            references[key] = _captions(f"{path}: image {key}", captions)
    return references


def _references_of_a_run(path: Path, records: Iterable[tuple[str, Any]]) -> dict[str, list[str]]:
    """Return the references in a run's records, each of which comes with its place in the file."""
    pairs: list[tuple[str, list[str]]] = []
    for place, row in records:
        if not isinstance(row, dict) or not {"image_id", "references"} <= row.keys():
            raise UserError(f"{place}: expected an object with 'image_id' and 'references'; give a run's predictions")
        pairs.append((_image_id(place, row["image_id"]), _captions(place, row["references"])))
    if twice := repeated(key for key, _ in pairs):
        raise UserError(f"{path}: images in two records: {listing(twice)}; keep one of each")
    return dict(pairs)


def _captions(where: str, captions: Any) -> list[str]:
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise UserError(f"{where}: expected a list of captions")
    return captions


def read_captions(path: Path) -> dict[str, str]:
    """Read predicted captions from COCO's results format, or from the predictions of a run.

    COCO's format is a JSON list of `{image_id, caption}`; a run writes one such object per line. The name of the file
    does not matter.

    Returns:
        Image id -> caption.

    Raises:
        UserError: the file is in neither format, or an image has two captions. The message lists these images.
    """
    path = Path(path)
    value, records = _value_or_records(path)
    rows = value if records is None else [row for _, row in records]
    pairs = list(_entries(path, rows, "result"))
    if twice := repeated(key for key, _ in pairs):
        raise UserError(f"{path}: images with two captions: {listing(twice)}; keep one of each")
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
        references: the reference captions, see `read_references`.
        predictions: the captions to score, see `read_captions`.
        split: which images to take from Karpathy's JSON.
        metrics: names from `METRICS`.
        only_predicted: leave out images that have no predicted caption; otherwise every image must have one.

    Returns:
        metric -> {value, n, stderr, reason}, with the COCO server's values x 100; and `counts` ->
        {testlen, reflen, guess, correct}.

    Raises:
        UserError: a metric is unknown, a file has an error, the ids differ, or Java or the tokenizer is not installed.
    """
    unknown = set(metrics) - set(METRICS)
    if unknown:
        raise UserError(f"unknown metrics {', '.join(sorted(unknown))}; choose from {', '.join(METRICS)}")
    wanted, given = read_references(Path(references), split), read_captions(Path(predictions))
    hint = ""
    if only_predicted:
        wanted = {key: captions for key, captions in wanted.items() if key in given}
    elif not given.keys() >= wanted.keys():
        hint = "; add --only-predicted to leave out images without a caption"
    try:
        check_ids(wanted, given)
    except UserError as error:
        raise UserError(f"{predictions}: {error}{hint}") from error
    scores, counts = score_captions(wanted, given, metrics)
    return {**{name: metric.model_dump() for name, metric in scores.items()}, "counts": counts.as_dict()}
