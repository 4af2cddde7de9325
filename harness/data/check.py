"""A data set's health on one page: counts, images, duplicates, hashes."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.coco import load_coco
from harness.data.imagefile import BadImage, check_images, images_digest
from harness.data.problem import Problem
from harness.data.scienceqa import BASE_SPLITS, ScienceQA, load_scienceqa
from harness.files import sha256_file

if TYPE_CHECKING:
    from rich.console import Console

_LISTED = 20


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found.

    Attributes:
        name: of the set.
        root: its folder.
        counts: split -> count name -> number; names are `problems`, `images`, `images readable`, and a property's
            values, e.g. `subject: natural science`, `context: TXT`, `grade: grade4`.
        bad_images: images that are missing, leave the folder or cannot be decoded.
        duplicates: groups of ids with the same content in more than one split, as `split/id`.
        sha256: file -> hash; `images` is one hash over all readable images.
    """

    name: str
    root: str
    counts: dict[str, dict[str, int]]
    bad_images: tuple[BadImage, ...]
    duplicates: tuple[tuple[str, ...], ...]
    sha256: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether training on the set can start as it is (duplicates are reported, not refused)."""
        return not self.bad_images

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "ok": self.ok}


def check_scienceqa(root: Path, full: bool = False) -> CheckReport:
    """Read a whole set, decode every image and count.

    Args:
        root: data folder in the official layout.
        full: the set is meant to be the full benchmark.

    Raises:
        UserError: a record or file is wrong (bad images are in the report instead), or the set calls itself full
            and has other counts.
    """
    root = Path(root)
    captions = (root / "captions.json").exists()
    data = load_scienceqa(root, captions=captions, full=full, skip_bad_images=True)
    undecodable = check_images(data.all_problems(), skip_bad=True)
    bad = (*data.skipped, *undecodable)
    unreadable = {entry.qid for entry in undecodable}
    hashes = {p.qid: sha256_file(p.image) for p in data.all_problems() if p.image and p.qid not in unreadable}
    readable = [p.image for p in data.all_problems() if p.image is not None and p.qid in hashes]
    return CheckReport(
        name=data.name,
        root=str(root),
        counts={split: _counts(data, split, unreadable) for split in BASE_SPLITS},
        bad_images=bad,
        duplicates=_across_splits((p.split, p.qid, _content(p, hashes.get(p.qid, ""))) for p in data.all_problems()),
        sha256={**data.sha256, "images": images_digest(readable, root)},
    )


def _counts(data: ScienceQA, split: str, unreadable: set[str]) -> dict[str, int]:
    problems = data.problems[split]
    present = sum(problem.image is not None for problem in problems)
    counts = {
        "problems": data.split_sizes[split],
        "images": present,
        "images readable": present - sum(problem.qid in unreadable for problem in problems),
    }
    tally: Counter[str] = Counter()
    for problem in problems:
        tally[f"subject: {problem.subject or 'unknown'}"] += 1
        tally[f"context: {_context(problem)}"] += 1
        tally[f"grade: {problem.grade or 'unknown'}"] += 1
    return {**counts, **tally}


def _row_order(name: str) -> tuple[int, int, str]:
    # Counts first, then subjects, contexts and grades; the length sorts grade2 before grade10.
    group = name.partition(":")[0] if ":" in name else ""
    return ("", "subject", "context", "grade").index(group), len(name) if group == "grade" else 0, name


def _context(problem: Problem) -> str:
    parts = ["text"] * bool(problem.hint) + ["image"] * (problem.image is not None)
    return " and ".join(parts) or "none"


def _content(problem: Problem, image_hash: str) -> str:
    text = "\0".join((problem.question, problem.hint, *problem.choices, image_hash))
    return hashlib.sha256(text.encode()).hexdigest()


def check_coco(root: Path, full: bool = False) -> CheckReport:
    """Read a whole caption set, decode every image and count.

    Args:
        root: data folder with `dataset_coco.json`.
        full: the set is meant to be all of COCO Captions.

    Raises:
        UserError: a record or file is wrong (bad images are in the report instead), or a full set has other counts.
    """
    root = Path(root)
    data = load_coco(root, full=full, skip_bad_images=True)
    images = data.all_images()
    undecodable = check_images(images, skip_bad=True)
    unreadable = {entry.qid for entry in undecodable}
    hashes = {image.qid: sha256_file(image.image) for image in images if image.qid not in unreadable}
    counts = {
        split: {
            "problems": data.split_sizes[split],
            "images": len(members),
            "images readable": sum(image.qid in hashes for image in members),
            "captions": sum(len(image.captions) for image in members),
        }
        for split, members in data.images.items()
    }
    return CheckReport(
        name=data.name,
        root=str(root),
        counts=counts,
        bad_images=(*data.skipped, *undecodable),
        duplicates=_across_splits((i.split, i.qid, hashes[i.qid]) for i in images if i.qid in hashes),
        sha256={**data.sha256, "images": images_digest([i.image for i in images if i.qid in hashes], root)},
    )


def _across_splits(contents: Iterable[tuple[str, str, str]]) -> tuple[tuple[str, ...], ...]:
    """Groups of `split/id` with equal content in more than one split, from (split, id, content hash)."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for split, identity, content in contents:
        groups.setdefault(content, []).append((split, identity))
    return tuple(
        tuple(f"{split}/{identity}" for split, identity in group)
        for group in groups.values()
        if len({split for split, _ in group}) > 1
    )


def print_report(report: CheckReport, console: "Console") -> None:
    """Show a report as tables."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", *report.counts, title=escape(f"{report.name} in {report.root}"))
    for name in sorted({name for counts in report.counts.values() for name in counts}, key=_row_order):
        table.add_row(name, *(f"{counts.get(name, 0):,}" for counts in report.counts.values()))
    console.print(table)
    _print_list(console, "bad images", [f"{bad.qid}: {bad.reason}" for bad in report.bad_images])
    _print_list(console, "same content in several splits", [" = ".join(ids) for ids in report.duplicates])
    for file, digest in report.sha256.items():
        console.print(escape(f"sha256 {digest} {file}"), soft_wrap=True)


def _print_list(console: "Console", title: str, lines: Sequence[str]) -> None:
    from rich.markup import escape

    console.print(f"{title}: {len(lines)}")
    for line in lines[:_LISTED]:
        console.print(escape(f"  {line}"), soft_wrap=True)
    if len(lines) > _LISTED:
        console.print(f"  and {len(lines) - _LISTED} more")
