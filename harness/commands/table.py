"""The subcommand `table`: full text for files and pipes, and what fits the width for a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.records import Record, read_records
from harness.report.finish import finished
from harness.report.paper import layout
from harness.report.rows import Board
from harness.report.selection import by_setting, where_measured
from harness.report.shown import joined, shown, with_columns
from harness.report.tables import leaderboard, table_text
from harness.report.timed import TimedFilter, filtered


@dataclass(frozen=True)
class TableOptions:
    """The options of `table`, as its help describes them.

    Attributes:
        everything: whether rows without a record are shown.
        width: columns of the terminal; None where the output is a file or a pipe.
    """

    results: Path
    number: int
    model: str | None = None
    protocol: str = "uniform"
    format: str | None = None
    columns: tuple[str, ...] = ()
    wide: bool = False
    everything: bool = False
    timed: TimedFilter = field(default_factory=TimedFilter)
    width: int | None = None


def table_command_text(options: TableOptions) -> str:
    """Return one table as text, ending in a newline.

    In a terminal, a table of costs is one table for each model and setting.

    Raises:
        UserError: a record or saved predictions have an error, or there is no such table, format, column or timing.
    """
    if options.format is not None or options.width is None:
        return table_text(
            options.results,
            options.number,
            options.model,
            options.format or "markdown",
            options.protocol,
            columns=options.columns,
            timed=options.timed,
        )
    records = filtered(read_records(options.results), options.number, options.timed)
    boards = list(_boards_by_setting(records, options))
    boards = boards or [("", leaderboard(records, options.number, options.model, options.protocol))]
    found = []
    for where, board in boards:
        board = finished(with_columns(board, options.columns), options.results)
        look = {"wide": options.wide, "everything": options.everything, "chosen": bool(options.columns)}
        found.append(shown(board, options.width, **look, where=where))
    return joined(found, options.width)


def _boards_by_setting(records: Sequence[Record], options: TableOptions) -> Iterator[tuple[str, Board]]:
    """Yield one board for each model and setting of a table of costs that has a usable timing, with the setting.

    What was timed on one device, in one dtype and at one size is never mixed with other timings.
    """
    plan = layout(options.number)
    if plan.setting != "device":
        return
    ours = [record for record in records if record.task == plan.task and record.kind in plan.kinds]
    for model in sorted({record.model for record in ours if options.model in (None, record.model)}):
        for group in by_setting([record for record in ours if record.model == model], options.number):
            board = leaderboard(group, options.number, model, options.protocol)
            if any(row.runs for row in board.rows):
                yield where_measured(group[0]), board
