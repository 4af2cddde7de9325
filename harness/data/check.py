"""A data set's health on one page: counts, images, duplicates, hashes."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.data.coco import load_coco
from harness.data.dataset import DataSet
from harness.data.imagefile import BadImage, HasImage
from harness.data.problem import Problem
from harness.data.scienceqa import load_scienceqa
from harness.files import sha256_file

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T", bound=HasImage)
_LISTED = 20


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found.

    Attributes:
        name: of the set.
        root: its folder.
        counts: split -> count name -> number; names are `problems` (or `images`), `images present`, `images readable`,
            `captions`, and a property's values, e.g. `subject: natural science`, `context: text`, `grade: grade4`.
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
    data = load_scienceqa(root, captions=(root / "captions.json").exists(), full=full, skip_bad_images=True)

    def content(problem: Problem, image_hash: str) -> str:
        text = "\0".join((problem.question, problem.hint, *problem.choices, image_hash))
        return hashlib.sha256(text.encode()).hexdigest()

    return _report(data, {split: _properties(problems) for split, problems in data.splits.items()}, content)


def check_coco(root: Path, full: bool = False) -> CheckReport:
    """Read a whole caption set, decode every image and count.

    Args:
        root: data folder with `dataset_coco.json`.
        full: the set is meant to be all of COCO Captions.

    Raises:
        UserError: a record or file is wrong (bad images are in the report instead), or a full set has other counts.
    """
    data = load_coco(Path(root), full=full, skip_bad_images=True)
    captions = {
        split: {"captions": sum(len(image.captions) for image in images)} for split, images in data.splits.items()
    }
    return _report(data, captions, lambda image, image_hash: image_hash)


def _report(
    data: DataSet[T], more_counts: Mapping[str, Mapping[str, int]], content: Callable[[T, str], str]
) -> CheckReport:
    """The report on a set whose missing images are left out already.

    Args:
        data: the set; its images are decoded here.
        more_counts: split -> counts of its own kind.
        content: what makes two samples the same, from a sample and its image's hash ("" without image).
    """
    checked = data.checked(skip_bad=True)
    hashes = {sample.qid: sha256_file(sample.image) for sample in checked.all_samples() if sample.image}
    counts = {}
    for split, samples in data.splits.items():
        present = [sample.qid for sample in samples if sample.image is not None]
        counts[split] = {
            f"{data.noun}s": data.split_sizes[split],
            "images present": len(present),
            "images readable": sum(qid in hashes for qid in present),
            **more_counts[split],
        }
    contents = (
        (split, sample.qid, content(sample, hashes.get(sample.qid, "")))
        for split, samples in checked.splits.items()
        for sample in samples
    )
    return CheckReport(
        name=data.name,
        root=str(data.root),
        counts=counts,
        bad_images=checked.skipped,
        duplicates=_across_splits(contents),
        sha256=dict(checked.sha256),
    )


def _properties(problems: Iterable[Problem]) -> Mapping[str, int]:
    tally: Counter[str] = Counter()
    for problem in problems:
        tally[f"subject: {problem.subject or 'unknown'}"] += 1
        tally[f"context: {_context(problem)}"] += 1
        tally[f"grade: {problem.grade or 'unknown'}"] += 1
    return tally


def _row_order(name: str) -> tuple[int, int, str]:
    # Subjects, contexts, grades; the length sorts grade2 before grade10.
    group = name.partition(":")[0]
    return ("subject", "context", "grade").index(group), len(name) if group == "grade" else 0, name


def _context(problem: Problem) -> str:
    parts = ["text"] * bool(problem.hint) + ["image"] * (problem.image is not None)
    return " and ".join(parts) or "none"


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
    names = {name for counts in report.counts.values() for name in counts}
    plain = [name for name in next(iter(report.counts.values())) if ":" not in name]
    for name in (*plain, *sorted(names - {*plain}, key=_row_order)):
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
