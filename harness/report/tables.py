"""Leaderboards: from records and the paper's numbers to rows. How a table is laid out is data (paper.toml)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.records import Record, read_records
from harness.report.paper import Column, Layout, PaperRow, layout, method_names, paper_models, paper_rows
from harness.report.render import render
from harness.report.rows import Board, Cell, TableRow
from harness.report.selection import RowKey, count_runs, select
from harness.stats import mean, sample_std

RowPair = tuple[str | None, str | None]
"""Method and variant."""


@dataclass(frozen=True)
class _Slot:
    """A row that a table has whether or not there are records for it."""

    name: str
    method: str | None
    variant: str | None
    model: str | None
    paper: PaperRow | None = None


def leaderboard(records: Iterable[Record], table: int, model: str | None = None) -> Board:
    """The rows of one table, in the paper's order, and notes on what was left out.

    Args:
        records: any records; those of other tasks and kinds are passed over.
        table: 1 to 4.
        model: one model only; None: the paper's models, then every other model that has records.

    Returns:
        Rows of the paper's models with the printed values beside; rows of other models without. A method
        without a usable record has cells whose value is None.

    Raises:
        UserError: there is no such table.
    """
    plan = layout(table)
    ours = [r for r in records if r.task == plan.task and r.kind in plan.kinds and model in (None, r.model)]
    slots = _slots(ours, table, plan, model)
    wanted = {(slot.method, slot.variant, slot.model) for slot in slots}
    selection = select([r for r in ours if (r.method, r.variant, r.model) in wanted], table, plan)
    rows = [_row(slot, selection.groups, table, plan) for slot in slots]
    without = [r.label for r in ours if (r.method, r.variant, r.model) not in wanted]
    notes = [*selection.notes, *_without_a_row(without, table)]
    return Board(table, plan, tuple(_with_ratios(rows, plan)), tuple(notes))


def _without_a_row(labels: Sequence[str], table: int) -> list[str]:
    names = ", ".join(sorted(set(labels)))
    return [f"{count_runs(len(labels))} left out: no row of table {table} is for {names}."] if labels else []


def table_text(results_dir: Path, table: int, model: str | None, format: str) -> str:
    """One table as text, from the records under `results_dir`.

    Args:
        format: markdown, latex, csv, json or html. The notes on what was left out stand under the table in
            markdown, latex and html; for csv and json read them from `leaderboard(...).notes`.

    Raises:
        UserError: a bad record, or no such table or format.
    """
    return render(leaderboard(read_records(results_dir), table, model), format)


def _slots(records: Sequence[Record], table: int, plan: Layout, model: str | None) -> list[_Slot]:
    in_paper = paper_models(table)
    slots = []
    for row in paper_rows(table):
        if model in (None, row.model) or (row.model is None and model in in_paper):
            slots.append(_Slot(row.name, row.method, row.variant, row.model, row))
    others = sorted({r.model for r in records} | ({model} if model else set()))
    for other in others:
        printed = {(slot.method, slot.variant) for slot in slots if slot.model == other}
        slots += _unprinted(records, table, plan, other, printed)
    return slots


def _unprinted(records: Sequence[Record], table: int, plan: Layout, model: str, printed: set[RowPair]) -> list[_Slot]:
    """Rows that the paper does not print: all rows of a model that it has not, else those with records."""
    have = {(r.method, r.variant) for r in records if r.model == model}
    rows = {(row.method, row.variant): row.name for row in paper_rows(table) if row.method}
    scale = {(row.method, row.variant): row.name for row in plan.scale}
    names = method_names()
    if not plan.only_rows:
        others = sorted(key for key in have if key[1] is None and key not in scale)
        rows |= {key: names.get(key[0], key[0]) for key in others if key not in rows}
    order = [*names, *sorted(key[0] for key in have if key[0] not in names)]
    rows = dict(sorted(rows.items(), key=lambda item: order.index(str(item[0][0])))) | scale
    if model in paper_models(table):
        rows = {key: name for key, name in rows.items() if key in have and (key not in scale or key[1] is None)}
    return [_Slot(name, *key, model) for key, name in rows.items() if key not in printed]


def _row(slot: _Slot, groups: Mapping[RowKey, list[Record]], table: int, plan: Layout) -> TableRow:
    group: Sequence[Record] = ()
    if slot.method and slot.model:
        group = groups.get((slot.method, slot.variant, slot.model), ())
    paper = slot.paper
    counts = [record.parameters.paper_convention for record in group if record.parameters]
    printed = paper.values if paper else {}
    return TableRow(
        table=table,
        name=slot.name,
        method=slot.method,
        variant=slot.variant,
        model=slot.model,
        task=plan.task,
        llm=_llm(slot, group),
        trainable=counts[-1] if counts else None,
        paper_trainable=paper.trainable if paper else None,
        seeds=tuple(record.seed for record in group),
        metrics={column.key: _cell(column, group, printed.get(column.key)) for column in plan.columns},
    )


def _llm(slot: _Slot, group: Sequence[Record]) -> str | None:
    """What ran, where pretrained weights did: --llm may have put another model in the preset's place."""
    if group and slot.paper and group[-1].backbone.weights != "random":
        return group[-1].backbone.llm
    return (slot.paper and slot.paper.llm) or slot.model


def _cell(column: Column, group: Sequence[Record], printed: float | None) -> Cell:
    """Mean over the seeds; no value where a seed has none: a mean over some of them is another number."""
    measured = [_measured(record, column) for record in group]
    values = [value for value, _ in measured if value is not None]
    if not values or len(values) < len(measured):
        return Cell(paper=printed)
    return Cell(mean(values), sample_std(values), max(n for _, n in measured), printed)


def _measured(record: Record, column: Column) -> tuple[float | None, int]:
    """Value and count of one column in one record."""
    if column.source == "metric" and column.key in record.metrics:
        metric = record.metrics[column.key]
        return metric.value, metric.n
    if column.source == "seconds" and record.speed and column.key in record.speed.phases:
        timing = record.speed.phases[column.key]
        return timing.median_s, timing.n
    if column.source == "ratio" and record.speed and column.of in record.speed.phases:
        timing = record.speed.phases[column.of]
        return (timing.ratio.median if timing.ratio else None), timing.n
    return None, 0


def _with_ratios(rows: Sequence[TableRow], plan: Layout) -> list[TableRow]:
    """Fill the ratio columns: this row over the baseline's row of the same model; measured, and as printed.

    A ratio that a run took pair by pair beside its baseline stays: medians of another run know less.
    """
    bases = {row.model: row for row in rows if row.method == plan.baseline and row.variant is None}
    filled = []
    for row in rows:
        metrics = dict(row.metrics)
        for column in plan.columns:
            base = bases.get(row.model)
            if column.source == "ratio" and base:
                over, under = row.metrics[column.of], base.metrics[column.of]
                paired = row.metrics[column.key].value
                value = _ratio(over.value, under.value) if paired is None else paired
                metrics[column.key] = Cell(value=value, n=over.n, paper=_ratio(over.paper, under.paper))
        filled.append(replace(row, metrics=metrics))
    return filled


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None
