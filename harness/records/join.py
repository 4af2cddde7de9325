"""Join results folders: copy the runs of several folders into one; a completed run is never overwritten.

A run is copied with everything that belongs to it. Its record is copied last, so a run with a record in the target has
all its files, however the copying ends.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UserError
from harness.files import read_file, write_atomic
from harness.records.beside import paths_beside
from harness.records.questions import questions_path, read_questions
from harness.records.record import Record
from harness.records.store import read_records, record_path

FOLDERS = ("adapters", "trackers")
"""Folders of a results folder that have one folder per run, at the same path as the record."""


@dataclass
class Merged:
    """What became of the runs of the folders that were joined.

    Attributes:
        added: ids of the runs that were copied.
        present: ids of the runs that the target had already, or that completed there and not in the source.
        conflicts: one line for each run that the target records with another content; these were left as they are.
    """

    added: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], target: Path) -> Merged:
    """Copy every run of the sources into the target, if the target does not record it.

    As in a sweep, a completed run takes the place of one that failed or was interrupted. Two different completed
    records of one run, or two different records of its failures, are a conflict.

    Args:
        sources: results folders.
        target: results folder; made if it is not there.

    Raises:
        UserError: a source has no records, a record is bad or has a file name that is not its own, or something cannot
            be written. Everything is read before anything is written.
    """
    known = {record.run_id: (record, target) for record in read_records(target)}
    merged = Merged()
    copies: dict[str, tuple[Record, Path]] = {}
    for source in sources:
        records = read_records(source)
        if not records:
            raise UserError(f"{source}: has no records; give a results folder, which has a folder `records`")
        for record in records:
            if not record_path(record, source).is_file():
                raise UserError(f"{source}: {record.run_id} is not at {record_path(record, source)}; move it there")
            before, place = known.get(record.run_id, (None, target))
            if before is not None and (before == record or _is_better(before, record)):
                merged.present.append(record.run_id)
            elif before is not None and not _is_better(record, before):
                merged.conflicts.append(f"{record.run_id}: {_difference(before, record)} in {place} and in {source}")
            else:
                known[record.run_id] = copies[record.run_id] = record, source
    for record, source in copies.values():
        _copy_run(record, source, target)
        merged.added.append(record.run_id)
    return merged


def _is_better(one: Record, other: Record) -> bool:
    return one.status == "completed" and other.status != "completed"


def _difference(one: Record, other: Record) -> str:
    """Return how two records of one run differ, in a few words."""
    if one.status != other.status:
        return f"{one.status} and {other.status}"
    if one.status == "completed":
        return "has other metrics" if one.metrics != other.metrics else "has the same metrics, and was made twice,"
    return f"{one.status} twice"


def _copy_run(record: Record, source: Path, target: Path) -> None:
    """Copy one run with all that belongs to it, the record last."""
    old, new = record_path(record, source), record_path(record, target)
    try:
        for part, copied in zip(paths_beside(old), paths_beside(new), strict=True):
            if os.path.lexists(part):
                write_atomic(copied, read_file(part))
        kept = read_questions(record.task, record.data, source)
        asked = [question.image for question in kept.questions if question.image is not None] if kept else []
        for image in (*(sample.image for sample in record.samples), *asked):
            if ".." in Path(image).parts:
                raise UserError(f"{old}: samples: {image} leaves the folder; repair the record or remove it")
            if os.path.lexists(source / image) and not (target / image).exists():
                write_atomic(target / image, read_file(source / image))
        questions = questions_path(record.task, record.data, target)
        if kept is not None and not questions.exists():
            write_atomic(questions, read_file(questions_path(record.task, record.data, source)))
        run = old.relative_to(source / "records").with_suffix("")
        for name in FOLDERS:
            if os.path.lexists(source / name / run):
                shutil.copytree(source / name / run, target / name / run, dirs_exist_ok=True)
        content = read_file(old)
    except OSError as error:
        # copytree collects the errors of all files into one without a name of its own.
        place, reason = error.filename or old, error.strerror or error
        raise UserError(f"{place}: {record.run_id} cannot be copied ({reason})") from error
    write_atomic(new, content)
