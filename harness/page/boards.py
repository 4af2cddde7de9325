"""The leaderboards of the page: the rows of the paper's tables, measured ones first, and an overview of all tasks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean

from harness.config.recipe import PROTOCOLS
from harness.numbers import signed
from harness.records import Record, remarks_about
from harness.report.finish import finished
from harness.report.paper import Column, layout, load_paper, method_names, paper_models
from harness.report.render import MARKS, legend_of_times
from harness.report.rows import Board, Cell, TableRow
from harness.report.selection import by_setting, hardware, measured_on, where_measured
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

    @property
    def varying(self) -> list[str]:
        """The facets in which its rows differ."""
        return [facet for facet in FACETS if len({row.facets[facet] for row in self.rows}) > 1]

    @property
    def is_measured(self) -> bool:
        """Whether a run is behind any of its rows."""
        return any(row.measured for row in self.rows)


def boards(records: Sequence[Record], results_dir: Path) -> list[PageBoard]:
    """Return an overview and a board for each table of the paper, with marks of how values rank.

    Values of different protocols do not compare, so each protocol has its own boards. Those of the published protocol
    that would hold no run are left out.

    Args:
        records: the records.
        results_dir: their folder, for the predictions.

    Raises:
        UserError: saved predictions or the remarks have an error.
    """

    def with_ranks(board: Board) -> Board:
        return finished(board, results_dir)

    found = []
    for protocol in PROTOCOLS:
        own = [run for run in records if run.protocol == protocol]
        tables = {int(number): table_rows(own, int(number), with_ranks) for number in sorted(load_paper().tables)}
        made = [_overview(tables, results_dir), *(_board(number, *rows) for number, rows in tables.items())]
        if protocol != "uniform":
            made = [_of_protocol(board, protocol) for board in made if board.is_measured]
        found += made
    return found


def _of_protocol(board: PageBoard, protocol: str) -> PageBoard:
    """Return a board under a name and a title that say its protocol."""
    return replace(board, name=f"{board.name}-{protocol}", title=f"{board.title} ({protocol} protocol)")


def table_rows(
    records: Sequence[Record], table: int, finish: Callable[[Board], Board] = lambda board: board
) -> tuple[list[TableRow], list[str]]:
    """Return the rows of one table for every model and setting, measured ones first, and notes on them.

    A note that does not hold for all boards with notes begins with the models and settings that it is about.

    Args:
        records: any records.
        table: number of the table.
        finish: applied to each board before its rows are taken.
    """
    plan = layout(table)
    ours = [run for run in records if run.task == plan.task and run.kind in plan.kinds]
    models = list(dict.fromkeys([*sorted({run.model for run in ours}), *paper_models(table)]))
    found: dict[tuple[object, ...], TableRow] = {}
    notes: dict[str, list[str]] = {}
    for model in models:
        parts = by_setting([run for run in ours if run.model == model], table) or [[]]
        for part, protocol in product(parts, PROTOCOLS):
            own = [run for run in part if run.protocol == protocol]
            if protocol != "uniform" and not own:
                continue
            board = finish(leaderboard(own, table, model, protocol))
            for row in board.rows:
                device = _measured_on(row.runs[0]) if row.runs else ""
                # The paper prints two rows for some models, with other values.
                values = () if row.runs else tuple(cell.paper for cell in row.metrics.values())
                found.setdefault((row.name, row.llm, row.model, device, protocol if row.runs else "", values), row)
            for note in board.notes:
                notes.setdefault(note, []).append(_board_name(own, model, protocol))
    measured = [row for row in found.values() if row.runs]
    known = {(row.name, row.model) for row in measured}
    printed = [row for row in found.values() if not row.runs and (row.name, row.model) not in known and row.is_printed]
    return measured + printed, _placed(notes)


def _board_name(runs: Sequence[Record], model: str, protocol: str) -> str:
    """Return what tells a board from the others of its table."""
    timed = next((where_measured(run) for run in runs if run.speed), None)
    return timed or f"{model}, protocol {protocol}"


def _placed(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the notes on several boards, each after the boards that it is on, unless it is on all that have any.

    Where something was measured stands in the rows already.
    """
    noted = {place for places in notes.values() for place in places}
    return [
        note if set(places) == noted else f"{'; '.join(places)}: {note}"
        for note, places in notes.items()
        if note not in map(measured_on, places)
    ]


def _measured_on(record: Record) -> str:
    """Return what tells measurements apart: the device and, for times, also the dtype and the sizes."""
    return where_measured(record) if record.speed else hardware(record)


def _board(table: int, found: Sequence[TableRow], notes: Sequence[str]) -> PageBoard:
    plan = layout(table)
    rows = [
        Row(
            _facets(row, plan.task),
            (
                *(_value(row, column) for column in plan.columns),
                trainable(row),
                Value(str(len(row.runs) or ""), len(row.runs) or None),
            ),
            bool(row.runs),
        )
        for row in found
    ]
    columns = (*(column.title for column in plan.columns), "Trainable parameters", "Seeds")
    every = (*legend_of_times(Board(table, plan, tuple(found), ())), *notes)
    return PageBoard(f"table-{table}", f"Table {table}. {plan.title}", columns, tuple(rows), every)


def _facets(row: TableRow, task: str) -> dict[str, str]:
    runs = row.runs
    values = {
        "Task": task,
        "Model": row.model or row.llm or "-",
        "Method": full_name(row),
        "Protocol": runs[0].protocol if runs else "the paper's",
        "Hardware": _measured_on(runs[0]) if runs else NOT_MEASURED,
    }
    return {facet: values[facet] for facet in FACETS}


def full_name(row: TableRow) -> str:
    """Return the name of a row; that of an ablation begins with the name of its method."""
    method = method_names().get(row.method or "", row.method)
    return row.name if row.variant is None or not method or method in row.name else f"{method} {row.name}"


def _value(row: TableRow, column: Column) -> Value:
    return value_of(row.metrics[column.key], column.digits, row.runs)


def value_of(cell: Cell, digits: int, runs: Iterable[Record]) -> Value:
    """Return a cell of a table as a cell of the page.

    Args:
        cell: the cell.
        digits: decimal places.
        runs: the runs behind it.
    """
    paper = "" if cell.paper is None else f"{cell.paper:.{digits}f}"
    if cell.difference is not None:
        paper += f" ({signed(cell.difference, digits)})"
    if cell.value is None:
        return Value("", cell.paper, "", paper)
    spread = "" if cell.std is None else f"± {cell.std:.{digits}f}"
    detail = f"{spread} {MARKS.get(cell.rank, '')}".strip()
    return Value(f"{cell.value:.{digits}f}", cell.value, detail, paper, tuple(run.spec_hash for run in runs))


def trainable(row: TableRow) -> Value:
    """Return the number of trainable parameters of a row, as the published code counts them."""
    measured = "" if row.trainable is None else f"{row.trainable:,}"
    order = row.trainable if row.trainable is not None else _number(row.paper_trainable)
    return Value(measured, order, "", row.paper_trainable or "", tuple(run.spec_hash for run in row.runs))


def _number(printed: str | None) -> float | None:
    """Return the number that the paper prints as `4.2M` or `7B`."""
    return None if printed is None else float(printed[:-1]) * {"M": 1e6, "B": 1e9}[printed[-1]]


def _overview(tables: dict[int, tuple[list[TableRow], list[str]]], results_dir: Path) -> PageBoard:
    """Return the board with the summary of every row that has a score, and with what it cost."""
    found: dict[tuple[object, ...], Row] = {}
    shown: list[Record] = []
    for number, (members, _) in tables.items():
        plan = layout(number)
        if plan.random_weights:
            continue
        summary = next(column for column in plan.columns if column.key == TASKS[plan.task].summary)
        for row in members:
            shown += row.runs
            facets = _facets(row, plan.task)
            # Each table ranks its own rows, and rows of several tables stand here.
            unranked = replace(row.metrics[summary.key], rank=None)
            values = (
                Value(summary.title),
                value_of(unranked, summary.digits, row.runs),
                trainable(row),
                *costs(row.runs),
                Value(str(len(row.runs) or ""), len(row.runs) or None),
            )
            # A reference row can be a row of the ablations too: the same runs are shown once.
            # The paper prints two rows of one name and model, with other values.
            hashes: tuple[object, ...] = tuple(run.spec_hash for run in row.runs)
            place = hashes or (*facets.values(), row.metrics[summary.key].paper)
            found.setdefault(place, Row(facets, values, bool(row.runs)))
    ordered = sorted(found.values(), key=lambda row: not row.measured)
    columns = ("Metric", "Score", "Trainable parameters", "Seconds per step", "Peak memory, MB", "Seeds")
    notes = ["Seconds and memory are comparable only between runs on the same hardware."] if ordered else []
    if any(peak.rss is not None and peak.cuda_allocated is None for peak in (run.peak_memory_bytes for run in shown)):
        notes.append(
            "On a CPU, the peak memory is that of the whole process, which differs more between sessions than between "
            "methods."
        )
    notes += remarks_about(shown, results_dir)
    return PageBoard("overview", "Overview of all tasks", columns, tuple(ordered), tuple(notes))


def costs(runs: Sequence[Record]) -> tuple[Value, Value]:
    """Return the seconds of a training step and the peak memory of a row, as means over its runs.

    Runs on other hardware than the first one, which the row names, do not count.
    """
    runs = [run for run in runs if hardware(run) == hardware(runs[0])]
    steps = [seconds for run in runs if (seconds := run.times_s.train_step_median) is not None]
    memory = [size for run in runs if (size := peak_memory(run)) is not None]
    hashes = tuple(run.spec_hash for run in runs)
    step = Value(f"{fmean(steps):.3g}", fmean(steps), "", "", hashes) if steps else Value("")
    peak = Value(f"{fmean(memory) / 1e6:,.0f}", fmean(memory), "", "", hashes) if memory else Value("")
    return step, peak


def peak_memory(record: Record) -> int | None:
    """Return the peak memory of a run in bytes: what torch allocated on the GPU, else the resident memory."""
    peak = record.peak_memory_bytes
    return peak.rss if peak.cuda_allocated is None else peak.cuda_allocated


def row_names(records: Sequence[Record]) -> dict[str, str]:
    """Return the names of the rows that runs belong to, in the order of the tables.

    Args:
        records: any records; runs without a row are left out.

    Returns:
        Spec hash of a run -> name of its row.
    """
    return {run.spec_hash: full_name(row) for _, row in scored(records) for run in row.runs}


def scored(records: Sequence[Record]) -> Iterator[tuple[str, TableRow]]:
    """Yield each measured row that has a score, with its task. Tables of costs have none.

    A row that stands in several tables, with the same runs in each, is yielded once.
    """
    known = set()
    for number in map(int, sorted(load_paper().tables)):
        plan = layout(number)
        if not plan.random_weights:
            for row in table_rows(records, number)[0]:
                runs = tuple(run.spec_hash for run in row.runs)
                if runs and runs not in known:
                    known.add(runs)
                    yield plan.task, row
