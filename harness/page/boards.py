"""The leaderboards of the page: the rows of the paper's tables, measured ones first, and an overview of all tasks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.records import Record
from harness.report.paper import Column, layout, load_paper, method_names, paper_models
from harness.report.rows import Cell, TableRow
from harness.report.selection import by_setting, select, where_measured
from harness.report.tables import leaderboard
from harness.tasks.facts import TASKS

FACETS = ("Task", "Model", "Method", "Protocol", "Hardware")
"""What the rows can be filtered and grouped by."""
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Value:
    """One cell of a board.

    Attributes:
        text: the value as text; empty where there is none.
        order: what the cell is sorted by; None sorts last.
        detail: what stands behind the value, such as its spread.
        paper: the paper's value as text, with the difference to it; empty where the paper prints none.
        runs: spec hashes of the runs behind the value.
    """

    text: str
    order: float | None = None
    detail: str = ""
    paper: str = ""
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row of a board.

    Attributes:
        facets: facet -> value, for each of `FACETS`.
        values: one value for each column of the board.
        measured: whether a run is behind the row.
    """

    facets: dict[str, str]
    values: tuple[Value, ...]
    measured: bool


@dataclass(frozen=True)
class PageBoard:
    """One leaderboard.

    Attributes:
        name: its id in the page.
        title: its heading.
        columns: headings of the values.
        rows: its rows, measured ones first.
        notes: remarks below it.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """The runs of one row of a table, which differ only in their seed.

    Attributes:
        row: the row.
        runs: the runs; empty for a row that only the paper has.
    """

    row: TableRow
    runs: tuple[Record, ...]


def boards(records: Sequence[Record]) -> list[PageBoard]:
    """Return the overview, and then one board for each table of the paper."""
    tables = {int(number): table_groups(records, int(number)) for number in sorted(load_paper().tables)}
    return [_overview(tables), *(_board(number, *found) for number, found in tables.items())]


def table_groups(records: Sequence[Record], table: int) -> tuple[list[Group], list[str]]:
    """Return the rows of one table for every model and setting, measured ones first, and notes on them.

    Args:
        records: any records.
        table: number of the table.
    """
    plan = layout(table)
    ours = [run for run in records if run.task == plan.task and run.kind in plan.kinds]
    models = list(dict.fromkeys([*sorted({run.model for run in ours}), *paper_models(table)]))
    found: dict[tuple[object, ...], Group] = {}
    notes: dict[str, None] = {}
    for model in models:
        for part in by_setting([run for run in ours if run.model == model], table) or [[]]:
            board = leaderboard(part, table, model)
            chosen = select(part, table, plan).groups
            for row in board.rows:
                runs = tuple(chosen.get((row.method or "", row.variant, model), ()))
                place = (row.name, row.llm, row.model, hardware(runs[0]) if runs else "")
                found.setdefault(place, Group(row, runs))
            notes |= dict.fromkeys(board.notes)
    measured = [group for group in found.values() if group.runs]
    known = {(group.row.name, group.row.model) for group in measured}
    printed = [
        group
        for group in found.values()
        if not group.runs and (group.row.name, group.row.model) not in known and _is_printed(group.row)
    ]
    return measured + printed, list(notes)


def _is_printed(row: TableRow) -> bool:
    return any(cell.paper is not None for cell in row.metrics.values())


def hardware(record: Record) -> str:
    """Return the device of a run as text."""
    environment = record.environment
    if environment.gpu:
        count = environment.processes or 1
        return environment.gpu if count == 1 else f"{count} × {environment.gpu}"
    threads = environment.threads
    return (environment.cpu or "unknown CPU") + (f", {threads} thread{'s' if threads != 1 else ''}" if threads else "")


def protocol(record: Record) -> str:
    """Return the name of a run's protocol: what was asked, and how answers were read."""
    train = record.config.get("train")
    named = train.get("protocol") if isinstance(train, dict) else None
    return str(named) if named else "uniform"


def _board(table: int, groups: Sequence[Group], notes: Sequence[str]) -> PageBoard:
    plan = layout(table)
    rows = [
        Row(
            _facets(group, plan.task),
            (
                *(_value(group, column) for column in plan.columns),
                trainable(group),
                Value(str(len(group.runs) or ""), len(group.runs) or None),
            ),
            bool(group.runs),
        )
        for group in groups
    ]
    columns = (*(column.title for column in plan.columns), "Trainable parameters", "Seeds")
    return PageBoard(f"table-{table}", f"Table {table}. {plan.title}", columns, tuple(rows), tuple(notes))


def _facets(group: Group, task: str) -> dict[str, str]:
    row, runs = group.row, group.runs
    values = {
        "Task": task,
        "Model": row.model or row.llm or "-",
        "Method": full_name(row),
        "Protocol": protocol(runs[0]) if runs else "the paper's",
        "Hardware": (where_measured(runs[0]) if runs[0].speed else hardware(runs[0])) if runs else NOT_MEASURED,
    }
    return {facet: values[facet] for facet in FACETS}


def full_name(row: TableRow) -> str:
    """Return the name of a row; that of an ablation begins with the name of its method."""
    method = method_names().get(row.method or "", row.method)
    return row.name if row.variant is None or not method or method in row.name else f"{method} {row.name}"


def _value(group: Group, column: Column) -> Value:
    cell = group.row.metrics[column.key]
    return value_of(cell, column.digits, group.runs)


def value_of(cell: Cell, digits: int, runs: Iterable[Record]) -> Value:
    """Return a cell of a table as a cell of the page.

    Args:
        cell: the cell.
        digits: decimal places.
        runs: the runs behind it.
    """
    paper = "" if cell.paper is None else f"{cell.paper:.{digits}f}"
    if cell.difference is not None:
        paper += f" ({cell.difference:+.{digits}f})"
    if cell.value is None:
        return Value("", cell.paper, "", paper)
    detail = "" if cell.std is None else f"± {cell.std:.{digits}f}"
    return Value(f"{cell.value:.{digits}f}", cell.value, detail, paper, tuple(run.spec_hash for run in runs))


def trainable(group: Group) -> Value:
    """Return the number of trainable parameters of a row, as the published code counts them."""
    row = group.row
    measured = "" if row.trainable is None else f"{row.trainable:,}"
    order = row.trainable if row.trainable is not None else _number(row.paper_trainable)
    return Value(measured, order, "", row.paper_trainable or "", tuple(run.spec_hash for run in group.runs))


def _number(printed: str | None) -> float | None:
    """Return the number that the paper prints as `4.2M` or `7B`."""
    return None if printed is None else float(printed[:-1]) * {"M": 1e6, "B": 1e9}[printed[-1]]


def _overview(tables: dict[int, tuple[list[Group], list[str]]]) -> PageBoard:
    """Return the board with the summary of every row that has a score, and with what it cost."""
    found: dict[tuple[str, ...], Row] = {}
    for number, (groups, _) in tables.items():
        plan = layout(number)
        if plan.random_weights:
            continue
        summary = next(column for column in plan.columns if column.key == TASKS[plan.task].summary)
        for group in groups:
            facets = _facets(group, plan.task)
            values = (
                Value(summary.title),
                _value(group, summary),
                trainable(group),
                *costs(group.runs),
                Value(str(len(group.runs) or ""), len(group.runs) or None),
            )
            # A reference row can be a row of the ablations too: the same runs are shown once.
            place = tuple(run.spec_hash for run in group.runs) or tuple(facets.values())
            found.setdefault(place, Row(facets, values, bool(group.runs)))
    rows = sorted(found.values(), key=lambda row: not row.measured)
    columns = ("Metric", "Score", "Trainable parameters", "Seconds per step", "Peak memory, MB", "Seeds")
    notes = ("Seconds and memory are comparable only between runs on the same hardware.",) if rows else ()
    return PageBoard("overview", "Overview of all tasks", columns, tuple(rows), notes)


def costs(runs: Sequence[Record]) -> tuple[Value, Value]:
    """Return the seconds of a training step and the peak memory of a row, as means over its runs."""
    steps = [step for run in runs if (step := run.times_s.train_step_median) is not None]
    memory = [peak for run in runs if (peak := peak_memory(run)) is not None]
    hashes = tuple(run.spec_hash for run in runs)
    step = Value(f"{fmean(steps):.3g}", fmean(steps), "", "", hashes) if steps else Value("")
    peak = Value(f"{fmean(memory) / 1e6:,.0f}", fmean(memory), "", "", hashes) if memory else Value("")
    return step, peak


def peak_memory(record: Record) -> int | None:
    """Return the peak memory of a run in bytes: what torch allocated on the GPU, else the resident memory."""
    peak = record.peak_memory_bytes
    return peak.rss if peak.cuda_allocated is None else peak.cuda_allocated


def scored(records: Sequence[Record]) -> Iterator[tuple[str, Group]]:
    """Yield each measured row that has a score, with its task. Tables of costs have none."""
    for number in map(int, sorted(load_paper().tables)):
        plan = layout(number)
        if not plan.random_weights:
            for group in table_groups(records, number)[0]:
                if group.runs:
                    yield plan.task, group
