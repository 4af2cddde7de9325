"""What a method shows of its inside on the evaluation split. Kept beside the record, for people to look at.

No table is made from it. Only methods that offer diagnostics have such a file, see `methods.base.Diagnostic`.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.records.beside import DIAGNOSTICS, OfRun, read_of_run, write_kept
from harness.records.fields import Count, Name, Section

Matrix = list[list[Annotated[float, Field(ge=-1e9, le=1e9)]]]


class DiagnosticMatrix(Section):
    name: Name
    """Short name, such as `figure3` for Figure 3 of the method's paper."""
    title: str
    """What is shown."""
    about: str
    """How to read it, and what the method's paper says of it."""
    rows: str
    """What the rows count."""
    columns: str
    """What the columns count."""
    row_labels: Annotated[list[str], Field(min_length=1)]
    """Names of the rows."""
    column_labels: Annotated[list[str], Field(min_length=1)]
    """Names of the columns."""
    mean: Matrix
    """The values, averaged over the images."""
    samples: dict[str, Matrix] = Field(default_factory=dict)
    """The values of the samples that the run keeps, by id."""

    @model_validator(mode="after")
    def _one_value_for_each_label(self) -> Self:
        shape = [len(self.column_labels)] * len(self.row_labels)
        for name, matrix in {"mean": self.mean, **self.samples}.items():
            if [len(row) for row in matrix] != shape:
                raise ValueError(f"{name}: must have one value for each row label and column label")
        return self


class Diagnostics(OfRun):
    """The diagnostics of one run. The description of each field is in results/README.md."""

    images: Annotated[Count, Field(ge=1)]
    """Number of images of the evaluation split that the means are over."""
    matrices: list[DiagnosticMatrix]
    """What the method shows."""


def diagnostics_path(record_path: Path) -> Path:
    """Return the path of a run's diagnostics: next to its record, with the ending `.diagnostics.json`."""
    return record_path.with_suffix(DIAGNOSTICS)


def write_diagnostics(record_path: Path, diagnostics: Diagnostics) -> Path:
    """Write a run's diagnostics next to its record, atomically, and return their path."""
    return write_kept(diagnostics_path(record_path), diagnostics)


def read_diagnostics(record_path: Path) -> Diagnostics | None:
    """Return the diagnostics of a record's run; None if there are none.

    Raises:
        UserError: the file cannot be read, is not one of diagnostics, or is that of another run.
    """
    return read_of_run(diagnostics_path(record_path), Diagnostics, record_path)
