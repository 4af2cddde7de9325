"""What the paper prints in its Tables 1 to 4, and how these tables are laid out; read from paper.toml."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from harness.errors import UserError, first_error
from harness.tasks.facts import TASKS

Table = Literal[1, 2, 3, 4]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PaperRow(_Model):
    """One printed row. `method` is None where the row is not a method of this benchmark (Human, BLIP-2, ...)."""

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
    """One column of a table."""

    key: str
    """Name of the column in records and in JSON."""
    header: str = ""
    """Heading in a printed table; empty: the key."""
    source: Literal["metric", "seconds", "ratio"] = "metric"
    """Where the value comes from: a metric of the task, the seconds of a phase, or a ratio to the baseline's row."""
    of: str = ""
    """Only for a ratio: key of the column whose value is divided by that of the baseline."""
    digits: int = Field(default=2, ge=0)
    """Decimal places in a printed table."""

    @property
    def title(self) -> str:
        """The heading in a printed table."""
        return self.header or self.key


class ScaleRow(_Model):
    """A reference row that the paper does not print, such as a method without images. It shows how good a score is."""

    name: str
    method: str
    variant: str | None = None


class Layout(_Model):
    """How one table is built from records."""

    title: str
    task: str
    kinds: frozenset[Literal["train", "oracle", "speed"]]
    """Kinds of records that enter the table."""
    columns: tuple[Column, ...]
    setting: Literal["data", "device"] = "data"
    """What the rows of one model must share: data set and weights (`data`), or device and timed setting (`device`)."""
    baseline: str | None = None
    """The method whose row is the denominator of all ratios."""
    random_weights: bool = False
    """Whether records of random weights may enter the table."""
    only_rows: bool = False
    """Whether the table is limited to the (method, variant) pairs that the paper prints."""
    scale: tuple[ScaleRow, ...] = ()
    yardstick: ScaleRow | None = None
    """The row of the backbone without a method, if the table has times. It is there only where it was measured."""

    @property
    def has_protocol(self) -> bool:
        """Whether the protocol of a run matters for its numbers; it does not for the cost of texts of given sizes."""
        return not self.random_weights

    @model_validator(mode="after")
    def _ratios(self) -> Self:
        keys = {column.key for column in self.columns}
        for column in self.columns:
            if column.source == "ratio" and (column.of not in keys or self.baseline is None):
                raise ValueError(f"column {column.key}: a ratio needs `of` (a column) and a `baseline`")
        return self

    @model_validator(mode="after")
    def _metrics_of_the_task(self) -> Self:
        if self.task not in TASKS:
            raise ValueError(f"task {self.task}: no such task; choose one of {', '.join(TASKS)}")
        known = TASKS[self.task].columns
        for column in self.columns:
            if column.source == "metric" and column.key not in known:
                raise ValueError(f"column {column.key}: not a metric of {self.task}; choose from {', '.join(known)}")
        return self


class CostFigure(_Model):
    """A figure of computed cost: what it compares, over which range, and the one number that the text takes from it."""

    title: str
    input_space: str
    """Name of the series whose visual tokens are part of the input."""
    memory_space: str
    """Name of the series whose visual tokens are entries of the FFNs."""
    text_lengths: tuple[int, ...]
    visual_tokens: tuple[int, ...]
    model: str
    """Preset that gives the size of the language model."""
    vision_width: int = Field(gt=0)
    vision_blocks: int = Field(gt=0)
    projector_dim: int = Field(gt=0)
    claim: float
    """Share of the FLOPs that the text of the paper claims."""
    claim_text_length: int = Field(gt=0)
    claim_visual_tokens: int = Field(gt=0)


class RowName(_Model):
    """What identifies one printed row."""

    table: Table
    name: str
    model: str | None = None


class Disagreement(_Model):
    """A statement of the paper (`says`), what contradicts it (`against`), and which reading is used here (`taken`)."""

    id: str
    says: str
    against: str
    taken: str
    row: RowName | None = None
    """The row whose accuracies cannot all be true by arithmetic, where the statement is about one (see `audit`)."""


class Paper(_Model):
    """The whole of paper.toml."""

    official_splits: dict[str, dict[str, int]]
    official_columns: dict[str, dict[str, PositiveInt]]
    """Task -> column -> number of problems in the official test split."""
    tables: dict[str, Layout]
    figures: dict[str, CostFigure]
    rows: tuple[PaperRow, ...]
    disagreements: tuple[Disagreement, ...]

    @model_validator(mode="after")
    def _columns_split_the_test_split(self) -> Self:
        for task, sizes in self.official_columns.items():
            whole = self.official_splits[task]["test"]
            for columns in (*TASKS[task].partitions, (TASKS[task].summary,)):
                if (total := sum(sizes.get(column, 0) for column in columns)) != whole:
                    raise ValueError(
                        f"official_columns.{task}: {', '.join(columns)} have {total} problems, not {whole}"
                    )
        return self

    @model_validator(mode="after")
    def _tables_of_the_tasks(self) -> Self:
        for name, facts in TASKS.items():
            for number in filter(None, (facts.table, facts.ablation_table)):
                plan = self.tables.get(str(number))
                if plan is None or plan.task != name:
                    raise ValueError(f"tables.{number}: harness/tasks/facts.py names it as a table of task {name}")
        return self


@cache
def load_paper() -> Paper:
    """Return the whole of paper.toml, checked.

    Raises:
        UserError: the file has an error; the message names the field.
    """
    with (files("harness.report") / "paper.toml").open("rb") as handle:
        content = tomllib.load(handle)
    try:
        return Paper.model_validate(content)
    except ValidationError as error:
        raise UserError(f"harness/report/paper.toml: {first_error(error)}; repair the file") from error


def layout(table: int) -> Layout:
    """Return how table 1, 2, 3 or 4 is laid out.

    Raises:
        UserError: there is no such table.
    """
    tables = load_paper().tables
    if str(table) not in tables:
        raise UserError(f"--table {table}: there is no such table; choose one of {', '.join(sorted(tables))}")
    return tables[str(table)]


def cost_figure(figure: int) -> CostFigure:
    """Return what a figure of computed cost shows; the paper's only such figure is Figure 2."""
    return load_paper().figures[str(figure)]


def paper_rows(table: int) -> list[PaperRow]:
    """Return the rows of one table in the paper's order."""
    return [row for row in load_paper().rows if row.table == table]


def find_row(table: int, method: str, variant: str | None, model: str) -> PaperRow | None:
    """Return the row of a table for a method, or its ablation `variant`, at `7b` or `13b`; None if there is none."""
    wanted = (method, variant, model)
    return next((r for r in paper_rows(table) if (r.method, r.variant, r.model) == wanted), None)


def paper_value(table: int, method: str, variant: str | None, model: str, column: str) -> float | None:
    """Return the printed value (percent, score x 100 or seconds) in one column of a row; see `find_row`.

    None where the paper prints none.
    """
    row = find_row(table, method, variant, model)
    return None if row is None else row.values.get(column)


def printed_trainable(method: str, variant: str | None, model: str, table: int | None = None) -> str | None:
    """Return the number of trainable parameters as the paper prints it, such as `4.2M`.

    Args:
        method, variant, model: the row.
        table: the table to read; None takes the most precise number of all tables (`4.17M` rather than `4.2M`).

    Returns:
        The printed text; None where the paper prints none.
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
    """Return the presets that one table of the paper has rows for, in its order."""
    return list(dict.fromkeys(row.model for row in paper_rows(table) if row.model))


def disagreements() -> list[Disagreement]:
    """Return the places where the paper contradicts itself or earlier work."""
    return list(load_paper().disagreements)


def timed_names() -> dict[str, str]:
    """Return the name of whatever is timed by its name in the records: every method, then the yardstick."""
    plans = (layout(int(table)) for table in load_paper().tables)
    return method_names() | {plan.yardstick.method: plan.yardstick.name for plan in plans if plan.yardstick}


def method_names() -> dict[str, str]:
    """Return the paper's name of each method by its registry name, in the order of the paper's tables."""
    named = (row for row in load_paper().rows if row.method and row.variant is None)
    names: dict[str, str] = {}
    for row in named:
        names.setdefault(str(row.method), row.name)
    return names
