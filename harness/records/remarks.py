"""What a reader should know about recorded runs, such as a mistake that was found later. A person writes it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness.records.beside import read_kept
from harness.records.fields import Section, SpecHash, Text

REMARKS = "remarks.json"
"""Name of the file in the results folder."""


class Remark(Section):
    runs: Annotated[list[SpecHash], Field(min_length=1)]
    """Spec hashes of the runs."""
    text: Text
    """One sentence, which every table prints that shows one of the runs."""


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
