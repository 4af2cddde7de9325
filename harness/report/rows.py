"""What a table is made of: cells, rows, and the board that holds them."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.report.paper import Layout


@dataclass(frozen=True)
class Cell:
    """One value. `value`: mean over seeds; `std`: sample std over seeds; `n`: problems (or batches) a seed."""

    value: float | None = None
    std: float | None = None
    n: int | None = None
    paper: float | None = None

    @property
    def difference(self) -> float | None:
        """Measured minus printed; None where either is missing."""
        return None if self.value is None or self.paper is None else self.value - self.paper


@dataclass(frozen=True)
class TableRow:
    """One row. `method` is None for rows of the paper that are no method of this benchmark."""

    table: int
    name: str
    method: str | None
    variant: str | None
    model: str | None
    task: str
    llm: str | None
    trainable: int | None
    """As the published code counts, like the paper's figure."""
    paper_trainable: str | None
    seeds: tuple[int, ...]
    metrics: Mapping[str, Cell]


@dataclass(frozen=True)
class Board:
    """One table: its rows in order, and what a reader must know about them."""

    table: int
    layout: Layout
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]

    @property
    def has_paper(self) -> bool:
        """Whether any row has a printed value."""
        return any(cell.paper is not None for row in self.rows for cell in row.metrics.values())
