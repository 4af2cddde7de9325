"""Leaderboards: from records and the paper's numbers to rows. paper.toml says how each table is laid out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.records import Record, read_records
from harness.report.finish import finished
from harness.report.paper import Column, Layout, PaperRow, layout, paper_models, paper_rows, timed_names
from harness.report.render import render
from harness.report.rows import Board, Cell, TableRow
from harness.report.selection import RowKey, count_runs, select
from harness.report.shown import with_columns
from harness.report.timed import TimedFilter, filtered
from harness.stats import mean, sample_std

RowPair = tuple[str | None, str | None]
"""Method and variant."""


@dataclass(frozen=True)
class _Slot:
    """A row that the table has, whether or not there are records for it."""

    name: str
    method: str | None
    variant: str | None
    model: str | None
    paper: PaperRow | None = None


def leaderboard(records: Iterable[Record], table: int, model: str | None = None, protocol: str = "uniform") -> Board:
    """Build one table: its rows in the paper's order, and notes on the records that were left out.

    Args:
        records: any records; those of other tasks and kinds are ignored.
        table: number of the table, 1 to 4.
        model: the model to show; None shows the paper's models and then every other model that has records.
        protocol: the protocol of the runs to show.

    Returns:
        The table. Rows of the paper's models include the values that it prints. A method without a usable record has
        cells whose value is None.

    Raises:
        UserError: there is no such table.
    """
    plan = layout(table)
    slots, wanted, without = _with_a_row(records, table, plan, model)
    selection = select(wanted, table, plan, protocol)
    rows = [_row(slot, selection.groups, table, plan) for slot in slots]
    notes = [*selection.notes(), *_without_a_row([run.label for run in without], table)]
    return Board(table, plan, tuple(_with_ratios(rows, plan)), tuple(notes), protocol)


def selection_notes(records: Iterable[Record], table: int, protocol: str, about: Callable[[Record], bool]) -> list[str]:
    """Return those notes of a table on which records it uses that are about some runs.

    Args:
        records, table, protocol: see `leaderboard`.
        about: whether the notes are about a run.
    """
    plan = layout(table)
    _, wanted, _ = _with_a_row(records, table, plan, None)
    return select(wanted, table, plan, protocol).notes(about)


def labels_with_a_row(records: Iterable[Record], table: int, model: str) -> set[str]:
    """Return the labels of those records of a model for which a table has a row."""
    _, wanted, _ = _with_a_row(records, table, layout(table), model)
    return {run.label for run in wanted}


def _with_a_row(
    records: Iterable[Record], table: int, plan: Layout, model: str | None
) -> tuple[list[_Slot], list[Record], list[Record]]:
    """Return the rows of a table, the records for which it has one, and the others of its task."""
    ours = [r for r in records if r.task == plan.task and r.kind in plan.kinds and model in (None, r.model)]
    slots = _slots(ours, table, plan, model)
    rows = {(slot.method, slot.variant, slot.model) for slot in slots}
    wanted, without = ([r for r in ours if ((r.method, r.variant, r.model) in rows) is has] for has in (True, False))
    return slots, wanted, without


def _without_a_row(labels: Sequence[str], table: int) -> list[str]:
    names = ", ".join(sorted(set(labels)))
    return [f"{count_runs(len(labels))} left out: table {table} has no row for {names}."] if labels else []


def table_text(
    results_dir: Path,
    table: int,
    model: str | None,
    format: str,
    protocol: str = "uniform",
    *,
    columns: Sequence[str] = (),
    timed: TimedFilter = TimedFilter(),  # noqa: B008 - it cannot be changed
) -> str:
    """Return one table as text, from the records in `results_dir`.

    Args:
        results_dir: the results folder.
        table: number of the table, 1 to 4.
        model: the model to show; None shows all.
        format: markdown, latex, csv, json or html. The notes on what was left out are printed below the table in
            markdown, latex and html; csv and json have none.
        protocol: the protocol of the runs to show.
        columns: the columns to show, by key or title; none shows all.
        timed: which timings to show.

    Raises:
        UserError: a record or saved predictions have an error, or there is no such table, format, column or timing.
    """
    board = leaderboard(filtered(read_records(results_dir), table, timed), table, model, protocol)
    return render(finished(with_columns(board, columns), results_dir), format)


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
    """Return the rows of a model that are not in the paper's table.

    For a model of the paper these are the methods that have records but no printed row. For any other model these are
    all rows of the table.
    """
    have = {(r.method, r.variant) for r in records if r.model == model}
    rows = {(row.method, row.variant): row.name for row in paper_rows(table) if row.method}
    scale = {(row.method, row.variant): row.name for row in plan.scale}
    names = timed_names()
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
        runs=tuple(group),
        metrics={column.key: _cell(column, group, printed.get(column.key)) for column in plan.columns},
    )


def _llm(slot: _Slot, group: Sequence[Record]) -> str | None:
    """Return the name of the language model: the one that ran, which --llm may have exchanged, else the paper's."""
    if group and slot.paper and group[-1].backbone.weights != "random":
        return group[-1].backbone.llm
    return (slot.paper and slot.paper.llm) or slot.model


def _cell(column: Column, group: Sequence[Record], printed: float | None) -> Cell:
    """Return the mean over the seeds; no value where a seed has none, because a mean over fewer seeds misleads."""
    measured = [_measured(record, column) for record in group]
    values = [value for value, _ in measured if value is not None]
    if not values or len(values) < len(measured):
        return Cell(paper=printed)
    return Cell(mean(values), sample_std(values), max(n for _, n in measured), printed)


def _measured(record: Record, column: Column) -> tuple[float | None, int]:
    """Return the value of one column in one record, and from how many problems, images or batches it is computed."""
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
    """Fill the ratio columns: each row divided by the baseline's row of the same model, measured and printed.

    If method and baseline were timed in turns in one run, the ratio measured there is kept, because it is more exact
    than the ratio of two medians from separate runs.
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
