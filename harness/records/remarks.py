"""What a reader should know about recorded runs, such as a mistake that was found later. A person writes it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness.records.beside import read_kept, write_kept
from harness.records.fields import Section, SpecHash, Text
from harness.records.record import Record

REMARKS = "remarks.json"
"""Name of the file in the results folder."""


class Remark(Section):
    runs: Annotated[list[SpecHash], Field(min_length=1)]
    """Spec hashes of the runs."""
    text: Text
    """One sentence, which every table and figure of scores or times prints that shows one of the runs."""


class Remarks(Section):
    """The remarks of a results folder."""

    schema_version: Literal[1] = 1
    """Version of this format; it is raised when a field changes its meaning."""
    remarks: list[Remark]
    """The remarks, in the order in which they are printed."""


def read_remarks(results_dir: Path) -> list[Remark]:
    """Return the remarks of a results folder; none where it has no such file.

    Raises:
        UserError: the file has an error.
    """
    found = read_kept(results_dir / REMARKS, Remarks)
    return found.remarks if found is not None else []


def add_remarks(results_dir: Path, added: Iterable[Remark]) -> None:
    """Write remarks behind those of a results folder; one with a known text joins its runs to it.

    Raises:
        UserError: the file has an error or cannot be written.
    """
    known = read_remarks(results_dir)
    runs = {remark.text: remark.runs for remark in known}
    for remark in added:
        runs[remark.text] = list(dict.fromkeys([*runs.get(remark.text, []), *remark.runs]))
    joined = [Remark(runs=hashes, text=text) for text, hashes in runs.items()]
    if joined != known:
        write_kept(results_dir / REMARKS, Remarks(remarks=joined), indent=1)


def remarks_about(runs: Iterable[Record], results_dir: Path) -> list[str]:
    """Return the sentences on any of these runs, in the order of the file.

    Args:
        runs: the runs that a table shows.
        results_dir: the results folder.

    Raises:
        UserError: the file has an error.
    """
    return sentences_about(runs, read_remarks(results_dir))


def sentences_about(runs: Iterable[Record], remarks: Iterable[Remark]) -> list[str]:
    """Return the sentences of these remarks on any of these runs, as `remarks_about` does for those of a folder."""
    shown = {run.spec_hash for run in runs}
    return [remark.text for remark in remarks if shown & {*remark.runs}]
