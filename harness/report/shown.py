"""A board as it is shown in a terminal: fewer columns where it is narrow, measured rows first.

`harness.report.render` has the full text, for files and pipes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.errors import UserError
from harness.report.render import ABSENT, TRAINABLE, board_notes, board_title, cell_text, legend, trainable_text
from harness.report.rows import Board, TableRow
from harness.report.selection import measured_on
from harness.tasks.facts import TASKS
from harness.terminal import UNLIMITED, Column, bullets, fitting, paragraph, table_lines


def with_columns(board: Board, names: Sequence[str]) -> Board:
    """Return a board with some of its columns only, in the order that was asked for.

    Args:
        board: the board.
        names: keys or titles of columns, in any case; empty keeps all.

    Raises:
        UserError: the board has no such column.
    """
    if not names:
        return board
    known = {key.lower(): column for column in board.layout.columns for key in (column.title, column.key)}
    if unknown := [name for name in names if name.lower() not in known]:
        titles = ", ".join(column.title for column in board.layout.columns)
        raise UserError(f"--columns {unknown[0]}: table {board.table} has no such column; choose from: {titles}")
    chosen = tuple(dict.fromkeys(known[name.lower()] for name in names))
    keys = [column.key for column in chosen]
    rows = tuple(replace(row, metrics={key: row.metrics[key] for key in keys}) for row in board.rows)
    return replace(board, layout=board.layout.model_copy(update={"columns": chosen}), rows=rows)


@dataclass(frozen=True)
class Shown:
    """A board as text for a terminal, ending in a newline.

    Attributes:
        text: the title and the rows.
        notes: the notes on it.
        legend: what its headings and words mean, the same for every board.
    """

    text: str
    notes: tuple[str, ...]
    legend: tuple[str, ...] = ()


def shown(
    board: Board, width: int, *, wide: bool = False, everything: bool = False, chosen: bool = False, where: str = ""
) -> Shown:
    """Return a board for a terminal.

    Args:
        board: the board.
        width: columns of the terminal.
        wide: show all columns, however wide the terminal is.
        everything: also show the rows without a record, below the measured ones.
        chosen: the user has chosen the columns of values, so they come before all others where it is narrow.
        where: what all rows were measured on, for the title.
    """
    measured = [row for row in board.rows if row.runs]
    others = [row for row in board.rows if not row.runs]
    rows = [*measured, *others] if everything else measured
    title = board_title(board) + (f"\n{where}" if where else "")
    if not rows:
        none = f"No row has a record yet. --all shows the {len(others)} rows that the paper's table has."
        return Shown(paragraph(f"{title}\n\n{none}", width), board.notes)
    columns = _columns(board, rows, chosen)
    fit = columns if wide else fitting(columns, width)
    # The title says where, and what is hidden needs no explanation.
    left = [column.title for column in columns if column not in fit]
    seen = replace(board, rows=tuple(rows))
    meanings = tuple(legend(seen, left))
    notes = [note for note in board_notes(seen, left) if note not in (measured_on(where), *meanings)]
    hints = _hints(left, 0 if everything else len(others))
    return Shown(table_lines(fit, UNLIMITED if wide else width, title), (*notes, *hints), meanings)


def joined(boards: Sequence[Shown], width: int) -> str:
    """Return boards below each other, each with its notes; a note on all of them and the legend come once, at the end.

    Args:
        boards: the boards.
        width: columns of the terminal.
    """
    common = [note for note in boards[0].notes if all(note in board.notes for board in boards)]
    parts = [(board.text, [note for note in board.notes if note not in common]) for board in boards]
    texts = [text + (f"\n{bullets(notes, width)}" if notes else "") for text, notes in parts]
    last = [*dict.fromkeys(text for board in boards for text in board.legend), *common]
    return "\n".join([*texts, bullets(last, width)] if last else texts)


def _columns(board: Board, rows: Sequence[TableRow], chosen: bool) -> list[Column]:
    """Return all columns: the method always comes, then the model and the columns that say most about a row."""
    values = board.layout.columns
    headline = [key for key in reversed(TASKS[board.layout.task].headline) if key in {column.key for column in values}]
    leading = headline if headline and not chosen else [column.key for column in values]
    others = [column.key for column in values if column.key not in leading]
    second = len(leading) if chosen else 1
    order = [*leading[:second], "Seeds", *leading[second:], TRAINABLE, *others, "LLM"]
    keep = {name: place + 1 for place, name in enumerate(order)}
    several = len({row.llm for row in rows}) > 1
    return [
        Column("Method", [row.name for row in rows]),
        Column("LLM", [row.llm or "-" for row in rows], keep=0 if several else keep["LLM"]),
        Column("Seeds", [str(len(row.seeds)) for row in rows], right=True, keep=keep["Seeds"]),
        Column(TRAINABLE, [trainable_text(row) for row in rows], right=True, keep=keep[TRAINABLE]),
        *(
            Column(
                column.title,
                [cell_text(row.metrics[column.key], column) for row in rows],
                right=True,
                keep=keep[column.key],
            )
            for column in values
        ),
    ]


def _hints(left: Sequence[str], hidden: int) -> Iterator[str]:
    """Yield how to see what is not shown: columns, by their titles, and a number of rows."""
    if left:
        yield f"Not shown, because the terminal is narrow: {', '.join(left)}. --wide shows all, --columns A,B chooses."
    if hidden:
        yield f"{hidden} row{'s' if hidden != 1 else ''} without a record ({ABSENT}) not shown; --all shows them."
