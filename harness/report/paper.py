"""What the paper prints in its Tables 1 to 4, and how these tables are laid out; read from paper.toml."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import UserError, first_error

Table = Literal[1, 2, 3, 4]
PRINTED: Mapping[str, tuple[Table, Table | None, str]] = {"scienceqa": (1, 4, "Avg"), "coco": (3, None, "CIDEr")}
"""Task -> the paper's table of methods, that of ablations, and the column that sums a row up."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PaperRow(_Model):
    """One printed row. `method` is None where the row is no method of this benchmark (Human, BLIP-2, ...)."""

    table: Table
    name: str
    method: str | None = None
    variant: str | None = None
    model: str | None = None
    llm: str | None = None
    trainable: str | None = Field(default=None, pattern=r"^\d+(\.\d+)?[MB]$")
    pretraining_data: str | None = None
    values: dict[str, float]


class Column(_Model):
    """One column: `key` in records and JSON; `of` is the column that a ratio is taken of."""

    key: str
    header: str = ""
    source: Literal["metric", "seconds", "ratio"] = "metric"
    of: str = ""
    digits: int = Field(default=2, ge=0)

    @property
    def title(self) -> str:
        return self.header or self.key


class ScaleRow(_Model):
    """A row without a counterpart in the paper that gives the scale of a table."""

    name: str
    method: str
    variant: str | None = None


class Layout(_Model):
    """How one table is built from records."""

    title: str
    task: str
    kinds: frozenset[Literal["train", "oracle", "speed"]]
    columns: tuple[Column, ...]
    setting: Literal["data", "device"] = "data"
    baseline: str | None = None
    random_weights: bool = False
    only_rows: bool = False
    """True: nothing but the (method, variant) pairs that the paper's table has."""
    scale: tuple[ScaleRow, ...] = ()

    @model_validator(mode="after")
    def _ratios(self) -> Self:
        keys = {column.key for column in self.columns}
        for column in self.columns:
            if column.source == "ratio" and (column.of not in keys or self.baseline is None):
                raise ValueError(f"column {column.key}: a ratio needs `of` (a column) and a `baseline`")
        return self


class CostFigure(_Model):
    """A figure of computed cost: what it compares, over what, and the one number that the text reads off it."""

    title: str
    input_space: str
    """Series whose visual tokens are part of the input."""
    memory_space: str
    """Series whose visual tokens are entries of the FFNs."""
    text_lengths: tuple[int, ...]
    visual_tokens: tuple[int, ...]
    model: str
    """Preset whose language model is meant."""
    vision_width: int = Field(gt=0)
    vision_blocks: int = Field(gt=0)
    projector_dim: int = Field(gt=0)
    claim: float
    claim_text_length: int = Field(gt=0)
    claim_visual_tokens: int = Field(gt=0)


class Disagreement(_Model):
    """Where the paper contradicts itself or what it builds on, and what is taken here."""

    id: str
    says: str
    against: str
    taken: str


class Paper(_Model):
    official_splits: dict[str, dict[str, int]]
    tables: dict[str, Layout]
    figures: dict[str, CostFigure]
    rows: tuple[PaperRow, ...]
    disagreements: tuple[Disagreement, ...]


@cache
def load_paper() -> Paper:
    """The whole of paper.toml, checked.

    Raises:
        UserError: the file does not hold; names the field.
    """
    with (files("harness.report") / "paper.toml").open("rb") as handle:
        content = tomllib.load(handle)
    try:
        return Paper.model_validate(content)
    except ValidationError as error:
        raise UserError(f"harness/report/paper.toml: {first_error(error)}; repair the file") from error


def layout(table: int) -> Layout:
    """How table 1, 2, 3 or 4 is laid out.

    Raises:
        UserError: there is no such table.
    """
    tables = load_paper().tables
    if str(table) not in tables:
        raise UserError(f"--table {table}: there is no such table; choose one of {', '.join(sorted(tables))}")
    return tables[str(table)]


def cost_figure(figure: int) -> CostFigure:
    """What a figure of computed cost shows; the paper's only one is its Figure 2."""
    return load_paper().figures[str(figure)]


def paper_rows(table: int) -> list[PaperRow]:
    """The rows of one table in the paper's order."""
    return [row for row in load_paper().rows if row.table == table]


def find_row(table: int, method: str, variant: str | None, model: str) -> PaperRow | None:
    """The paper's row for a method (or its ablation) at `7b` or `13b`; None if it prints none."""
    wanted = (method, variant, model)
    return next((r for r in paper_rows(table) if (r.method, r.variant, r.model) == wanted), None)


def paper_value(table: int, method: str, variant: str | None, model: str, column: str) -> float | None:
    """A printed value (percent, score x 100 or seconds); None if the paper prints none."""
    row = find_row(table, method, variant, model)
    return None if row is None else row.values.get(column)


def printed_trainable(method: str, variant: str | None, model: str, table: int | None = None) -> str | None:
    """The trainable count as printed in one table; None if it prints none.

    Without `table`, the most precise print of all tables (`4.17M` rather than `4.2M`).
    """
    printed = [
        row.trainable
        for row in load_paper().rows
        if (row.method, row.variant, row.model) == (method, variant, model)
        and row.trainable
        and table in (None, row.table)
    ]
    return max(printed, key=len, default=None)


def paper_models(table: int) -> list[str]:
    """The presets that one table of the paper has rows for, in its order."""
    return list(dict.fromkeys(row.model for row in paper_rows(table) if row.model))


def disagreements() -> list[Disagreement]:
    """Where the paper contradicts itself or its predecessors' code."""
    return list(load_paper().disagreements)


def method_names() -> dict[str, str]:
    """Registry name -> the paper's name, in the order of its tables."""
    named = (row for row in load_paper().rows if row.method and row.variant is None)
    names: dict[str, str] = {}
    for row in named:
        names.setdefault(str(row.method), row.name)
    return names
