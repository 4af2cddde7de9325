"""The parts of a table: cells, rows, and the board that contains them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.records import Record
from harness.report.paper import Layout

Rank = Literal["best", "tied", "lower", "untested"]
"""How a value stands to the best one of its column: it is better than all others (`best`), not distinguishable from the
best, which the highest value itself can be (`tied`), worse than the best (`lower`), or could not be tested."""


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Attributes:
        value: mean over seeds; None where there is no usable record.
        std: sample standard deviation over seeds; None for a single seed.
        n: number of problems, images or timed batches per seed.
        paper: value that the paper prints; None where it prints none.
        rank: how the value stands to the best one of its column; None where it is not ranked.
    """

    value: float | None = None
    std: float | None = None
    n: int | None = None
    paper: float | None = None
    rank: Rank | None = None

    @property
    def difference(self) -> float | None:
        """The measured value minus the printed one; None where either is missing."""
        return None if self.value is None or self.paper is None else self.value - self.paper


@dataclass(frozen=True)
class TableRow:
    """One row. `method` is None for rows of the paper that are not a method of this benchmark."""

    table: int
    name: str
    method: str | None
    variant: str | None
    model: str | None
    task: str
    llm: str | None
    trainable: int | None
    """Number of trainable parameters as the published code counts them, comparable with the paper's number."""
    paper_trainable: str | None
    runs: tuple[Record, ...]
    """The runs that the row averages, one per seed."""
    metrics: Mapping[str, Cell]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def is_printed(self) -> bool:
        """Whether the paper prints a value for the row."""
        return any(cell.paper is not None for cell in self.metrics.values())


@dataclass(frozen=True)
class Board:
    """One table: its rows in order, and notes for the reader."""

    table: int
    layout: Layout
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
    protocol: str = "uniform"
    """The protocol of its runs."""

    @property
    def has_paper(self) -> bool:
        """Whether the paper prints a value for any of the rows."""
        return any(row.is_printed for row in self.rows)
