"""Join results folders: copy the runs of several folders into one; a completed run is never overwritten.

A run is copied with everything that belongs to it. What a failed run left in the target is removed before that. The
record is copied last, so a run with a record in the target has all its files, however the copying ends.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UserError
from harness.files import copy_atomic
from harness.records.beside import paths_beside
from harness.records.questions import questions_path, read_questions
from harness.records.record import Record
from harness.records.remarks import Remark, add_remarks, read_remarks
from harness.records.store import find_record, read_records, record_path, require_at_its_path, require_same_run

FOLDERS = ("adapters", "trackers")
"""Folders of a results folder that have one folder per run, at the same path as the record."""
SHARED = "samples"
"""The folder of what runs on the same data share; nothing in it is replaced."""


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

    The remarks of a source on runs that the target has as they are there are added to those of the target. As in a
    sweep, a completed run takes the place of one that failed or was interrupted. Two different completed
    records of one run, or two different records of its failures, are a conflict.

    Args:
        sources: results folders.
        target: results folder; made if it is not there.

    Raises:
        UserError: a source has no records, a record is bad or has a file name that is not its own, the target has a
            record of a run to be copied that cannot be read, two runs have one spec hash, remarks have an error, a file
            of a run is no regular file inside its source, or something cannot be written. All but the last is found
            before anything is written.
    """
    known = {record.spec_hash: (record, target) for record in read_records(target)}
    merged = Merged()
    copies: dict[str, tuple[Record, Path]] = {}
    read_remarks(target)
    remarks: list[tuple[Record, Remark]] = []
    for source in sources:
        records = read_records(source)
        if not records:
            raise UserError(f"{source}: has no records; give a results folder, which has a folder `records`")
        remarked = read_remarks(source)
        for record in records:
            require_at_its_path(record, source)
            remarks += [(record, remark) for remark in remarked if record.spec_hash in remark.runs]
            before, place = known.get(record.spec_hash, (None, target))
            if before is not None:
                require_same_run(record, source, before, place)
            if before is not None and (before == record or _is_better(before, record)):
                merged.present.append(record.run_id)
            elif before is not None and not _is_better(record, before):
                merged.conflicts.append(f"{record.run_id}: {_difference(before, record)} in {place} and in {source}")
            else:
                known[record.spec_hash] = copies[record.spec_hash] = record, source
    replaced = {spec_hash: find_record(target, spec_hash) for spec_hash in copies}
    for earlier in replaced.values():
        # `read_records` passes over records that it cannot read, and finds a record whatever its file name is.
        if earlier is not None:
            require_at_its_path(earlier, target)
    runs = [(record, source, _files_of_run(record, source)) for record, source in copies.values()]
    for record, source, files in runs:
        # Copying may take long, and a sweep may make runs in the target meanwhile.
        now = find_record(target, record.spec_hash)
        if now is not None and now != replaced[record.spec_hash]:
            known[record.spec_hash] = now, target
            merged.conflicts.append(f"{record.run_id}: has been recorded in {target} meanwhile, and is in {source}")
            continue
        for stale in {*_own_files(record, target)} - {*files}:
            _remove(target / stale)
        for file in files:
            if not (file.parts[0] == SHARED and (target / file).exists()):
                copy_atomic(source / file, target / file)
        merged.added.append(record.run_id)
    # A remark on a run that was left behind is not about the target's own run.
    taken = [(record, remark) for record, remark in remarks if known[record.spec_hash][0] == record]
    add_remarks(target, [Remark(runs=[record.spec_hash], text=remark.text) for record, remark in taken])
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


def _files_of_run(record: Record, source: Path) -> list[Path]:
    """Return the path, inside the source, of every file of a run, the record last.

    Raises:
        UserError: one of them is no regular file inside the source. A source may come from somebody else, and a link
            in it may lead to any file of this machine, or to a device without an end.
    """
    shared = [file for file in _shared_files(record, source) if os.path.lexists(source / file)]
    files = [*_own_files(record, source), *shared, record_path(record, Path())]
    for file in files:
        _require_inside(file, source)
    return files


def _own_files(record: Record, folder: Path) -> list[Path]:
    """Return the path, inside a results folder, of every file that belongs to one run only, without its record."""
    own = record_path(record, Path())
    run = own.relative_to("records").with_suffix("")
    below = (file.relative_to(folder) for name in FOLDERS for file in _files_below(folder / name / run))
    return [*(file for file in paths_beside(own) if os.path.lexists(folder / file)), *below]


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise UserError(f"{path}: is of a failed run and cannot be removed ({error.strerror}); remove it") from error


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the path of everything below a folder that is no folder. A linked folder is not entered."""
    if os.path.lexists(folder):
        for place, inner, names in os.walk(folder, onerror=_refuse):
            links = [name for name in inner if Path(place, name).is_symlink()]
            yield from (Path(place, name) for name in (*names, *links))


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be copied ({error.strerror}); repair or remove it") from error


def _shared_files(record: Record, source: Path) -> Iterator[Path]:
    """Yield the path, inside the source, of what runs on the same data share: kept images and questions."""
    images = [sample.image for sample in record.samples]
    questions = questions_path(record.task, record.data, Path())
    if os.path.lexists(source / questions):
        _require_inside(questions, source)
        kept = read_questions(record.task, record.data, source)
        images += [question.image for question in kept.questions if question.image is not None] if kept else []
    for image in images:
        if ".." in Path(image).parts:
            place = record_path(record, source)
            raise UserError(f"{place}: samples: {image} leaves the folder; repair the record or remove it")
        yield Path(image)
    yield questions


def _require_inside(file: Path, source: Path) -> None:
    path = source / file
    try:
        real = Path(os.path.realpath(path, strict=True))
    except OSError as error:
        raise UserError(f"{path}: cannot be copied ({error.strerror}); repair or remove it") from error
    if not (real.is_file() and real.is_relative_to(os.path.realpath(source))):
        raise UserError(f"{path}: is not a regular file inside {source}; put the file itself there, or remove it")
