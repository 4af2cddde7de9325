"""Check a whole data set: count its samples, decode its images, find duplicates and hash its files."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from harness.data.coco import load_coco
from harness.data.dataset import DataSet
from harness.data.imagefile import BadImage, HasImage
from harness.data.problem import Problem
from harness.data.scienceqa import load_scienceqa
from harness.escape import visible
from harness.streams import Say
from harness.terminal import UNLIMITED, Column, table_lines, terminal_width

if TYPE_CHECKING:
    from rich.console import Console

SampleT = TypeVar("SampleT", bound=HasImage)
MAX_LISTED = 20
"""How many lines `print_report` shows of each list."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What the check of a data set found.

    Attributes:
        name: name of the data set.
        root: its data folder.
        counts: split -> name of the count -> number. The names are `problems` (or `images`), `images present`,
            `images readable`, `captions` (where the data has some), and one per value of a property, such as
            `subject: natural science`, `context: text` or `grade: grade4`.
        bad_images: images that are missing, are outside the data folder or cannot be decoded.
        duplicates: groups of samples that have the same content in more than one split, as `split/id`.
        sha256: file name -> hash; `images` is one hash over all readable images.
    """

    name: str
    root: str
    counts: dict[str, dict[str, int]]
    bad_images: tuple[BadImage, ...]
    duplicates: tuple[tuple[str, ...], ...]
    sha256: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether training can start on the set as it is; duplicates are reported but do not prevent it."""
        return not self.bad_images

    def as_dict(self) -> dict[str, object]:
        """Return the report as plain data for JSON."""
        return {**asdict(self), "ok": self.ok}


def check_scienceqa(root: Path, full: bool = False, say: Say = lambda line: None) -> CheckReport:
    """Check a ScienceQA folder: read every record and decode every image.

    Args:
        root: data folder in the official layout.
        full: require the official size of the full benchmark.
        say: called with a line if the verdict on the images cannot be kept for later runs.

    Returns:
        the report; bad images are listed in it and raise no error.

    Raises:
        UserError: a file or record is wrong, or a set declared as full does not have the official size.
    """
    root = Path(root)
    has_captions = (root / "captions.json").exists()
    data = load_scienceqa(root, captions=has_captions, full=full, skip_bad_images=True)
    more_counts = {
        split: {
            **({"captions": sum(bool(problem.caption) for problem in problems)} if has_captions else {}),
            **_properties(problems),
        }
        for split, problems in data.splits.items()
    }

    def content(problem: Problem, image_hash: str) -> str:
        text = "\0".join((problem.question, problem.hint, *problem.choices, image_hash))
        return hashlib.sha256(text.encode()).hexdigest()

    return _report(data, more_counts, content, say)


def check_coco(root: Path, full: bool = False, say: Say = lambda line: None) -> CheckReport:
    """Check a COCO Captions folder: read every record and decode every image.

    Args:
        root: data folder with `dataset_coco.json`.
        full: require the official size of COCO Captions.
        say: called with a line if the verdict on the images cannot be kept for later runs.

    Returns:
        the report; bad images are listed in it and raise no error.

    Raises:
        UserError: a file or record is wrong, or a set declared as full does not have the official size.
    """
    data = load_coco(Path(root), full=full, skip_bad_images=True)
    captions = {
        split: {"captions": sum(len(image.captions) for image in images)} for split, images in data.splits.items()
    }
    return _report(data, captions, lambda image, image_hash: image_hash, say)


def _report(
    data: DataSet[SampleT],
    more_counts: Mapping[str, Mapping[str, int]],
    content: Callable[[SampleT, str], str],
    say: Say,
) -> CheckReport:
    """Decode the images of a loaded set and build the report.

    Args:
        data: the loaded set, without the samples whose image file is missing.
        more_counts: split -> counts that only this kind of data set has.
        content: returns a key from a sample and the hash of its image (`""` without an image). Two samples with the
            same key are duplicates.
        say: called with a line if the verdict on the images cannot be kept.
    """
    # Who asks for a check wants the files read, not an earlier verdict.
    checked = data.checked(skip_bad=True, say=say, use_known=False)
    hashes = {sample.qid: checked.image_sha256[sample.image] for sample in checked.all_samples() if sample.image}
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
    """Count the problems by subject, by kind of context and by grade."""
    tally: Counter[str] = Counter()
    for problem in problems:
        tally[f"subject: {problem.subject or 'unknown'}"] += 1
        tally[f"context: {_context(problem)}"] += 1
        tally[f"grade: {problem.grade or 'unknown'}"] += 1
    return tally


def _row_order(name: str) -> tuple[int, int, str]:
    """Return the sort key of a row: subjects come first, then contexts, then grades."""
    # Sorting grades by the length of the name first puts grade2 before grade10.
    group = name.partition(":")[0]
    return ("subject", "context", "grade").index(group), len(name) if group == "grade" else 0, name


def _context(problem: Problem) -> str:
    """Return what accompanies the question: `text`, `image`, `text and image` or `none`."""
    parts = ["text"] * bool(problem.hint) + ["image"] * (problem.image is not None)
    return " and ".join(parts) or "none"


def _across_splits(contents: Iterable[tuple[str, str, str]]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of samples whose content key occurs in more than one split.

    Args:
        contents: split, id and content key of each sample.

    Returns:
        one tuple per group, with each sample as `split/id`.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for split, identity, content in contents:
        groups.setdefault(content, []).append((split, identity))
    return tuple(
        tuple(f"{split}/{identity}" for split, identity in group)
        for group in groups.values()
        if len({split for split, _ in group}) > 1
    )


def print_report(report: CheckReport, console: "Console") -> None:
    """Print a report: a table of counts, then the bad images, the duplicates and the hashes."""
    names = {name for counts in report.counts.values() for name in counts}
    plain = [name for name in next(iter(report.counts.values())) if ":" not in name]
    rows = (*plain, *sorted(names - {*plain}, key=_row_order))
    columns = [Column("", rows)]
    for split, counts in report.counts.items():
        columns.append(Column(split, [f"{counts.get(name, 0):,}" for name in rows], right=True))
    table = table_lines(columns, terminal_width() or UNLIMITED, f"{report.name} in {report.root}\n")
    console.print(table, highlight=False, markup=False, soft_wrap=True)
    _print_list(console, "bad images", [f"{bad.qid}: {bad.reason}" for bad in report.bad_images])
    _print_list(console, "same content in several splits", [" = ".join(ids) for ids in report.duplicates])
    for file, digest in report.sha256.items():
        console.print(_plain(f"sha256 {digest} {file}"), soft_wrap=True)


def _print_list(console: "Console", title: str, lines: Sequence[str]) -> None:
    console.print(f"{title}: {len(lines)}")
    for line in lines[:MAX_LISTED]:
        console.print(_plain(f"  {line}"), soft_wrap=True)
    if len(lines) > MAX_LISTED:
        console.print(f"  and {len(lines) - MAX_LISTED} more")


def _plain(text: str) -> str:
    """Return text that rich prints as it is: without markup, and without control characters."""
    from rich.markup import escape

    return escape(visible(text))
