"""Tables and blocks for a person at a terminal, which fit its width. Files and pipes get the full text instead."""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import ClassVar

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Column as TableColumn
from rich.table import Table
from rich.text import Text

from harness.escape import visible, visible_lines

NARROWEST = 40
"""Columns that a table takes at least; a narrower terminal wraps its lines."""
UNLIMITED = 10_000
"""A width that every table fits."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: its heading.
        cells: one text for each row.
        right: whether it is aligned to the right.
        keep: order in which columns are kept where there is no room for all: the lowest first, 0 always.
    """

    title: str
    cells: Sequence[str]
    right: bool = False
    keep: int = 0


def terminal_width() -> int | None:
    """Return the number of columns of the terminal that standard output is; None where it is a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that fit beside each other, in their order; those that are always kept come in any case.

    Args:
        columns: all columns.
        width: columns of the terminal.
    """
    shown = [column for column in columns if column.keep == 0]
    for candidate in sorted((column for column in columns if column.keep), key=lambda column: column.keep):
        wider = [column for column in columns if column in shown or column is candidate]
        if _natural_width(wider) <= width:
            shown = wider
    return shown


def table_lines(columns: Sequence[Column], width: int, title: str = "") -> str:
    """Return a table as text that ends in a newline; cells that are too long for the width are wrapped, never cut.

    Args:
        columns: the columns.
        width: columns of the terminal.
        title: printed above the table.
    """
    table = _table(columns)
    _keep_words(table, width)
    text = _printed(table, width)
    return (paragraph(title, width) if title else "") + text


def bullets(lines: Sequence[str], width: int) -> str:
    """Return a list with one item for each line, ending in a newline; items that are too long are wrapped."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        grid.add_row("-", Text(visible(line)))
    return _printed(grid, width) if lines else ""


def document(text: str, width: int) -> str:
    """Return Markdown laid out for a terminal, ending in a newline; nothing in it is cut.

    Args:
        text: the document.
        width: columns of the terminal.
    """
    # This import takes as long as those of all commands together, and --help needs none of it.
    from rich.markdown import Markdown, TableElement

    class FoldedTable(TableElement):
        """A table that is as narrow as its words allow, and breaks words only below that."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for table in super().__rich_console__(console, options):
                if isinstance(table, Table):
                    _keep_words(table, options.max_width)
                yield table

    class Document(Markdown):
        """Markdown whose tables are as above."""

        elements: ClassVar = {**Markdown.elements, "table_open": FoldedTable}

    return _printed(Document(visible_lines(text), hyperlinks=False), width)


def entry(head: str, text: str, width: int) -> str:
    """Return text behind a head, with its further lines indented as the first one, ending in a newline.

    Words are never broken, so that addresses and commands can be copied.

    Args:
        head: what the first line begins with.
        text: the text; it becomes one paragraph.
        width: columns of the terminal.
    """
    indent = " " * len(head)
    lines = textwrap.wrap(
        visible(text),
        max(width, NARROWEST),
        initial_indent=head,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "".join(f"{line}\n" for line in lines or [head.rstrip()])


def paragraph(text: str, width: int, indent: int = 0) -> str:
    """Return text that is wrapped to the width, ending in a newline.

    Args:
        text: the text; its line breaks stay.
        width: columns of the terminal.
        indent: number of spaces before each line.
    """
    return _printed(Padding(Text(visible_lines(text)), (0, 0, 0, indent), expand=False), width)


def _table(columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(Text(visible(column.title)), justify="right" if column.right else "left", overflow="fold")
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(visible(cell)) for cell in row))
    return table


def _keep_words(table: Table, width: int) -> None:
    """Give each column room for its longest word, if the width has room for all of them; nothing is cut in any case.

    The columns share what room is left as evenly as their texts allow. rich would take it from a column whose longest
    word then makes the table wider than the terminal, which cuts the last column.
    """
    table.show_edge, table.box = False, box.SIMPLE_HEAD
    words = [max(map(cell_len, _words(column)), default=1) for column in table.columns]
    whole = [max(map(cell_len, _lines(column)), default=1) for column in table.columns]
    gaps = len(words) - 1
    # Narrow gaps are better than cells of two lines.
    fits_narrow, fits_wide = (sum(whole) + gap * gaps <= width for gap in (1, 2))
    gap = 2 if fits_wide or (sum(words) + 2 * gaps <= width and not fits_narrow) else 1
    table.padding = (0, 1, 0, 0) if gap == 2 else 0
    for column in table.columns:
        column.overflow = "fold"
    if sum(words) + gap * gaps <= width:
        for column, own in zip(table.columns, _shared(width - gap * gaps, words, whole), strict=True):
            column.width = own


def _shared(room: int, least: Sequence[int], most: Sequence[int]) -> list[int]:
    """Return the width of each column: between its least and its most, and the narrowest first where room is short."""
    widths = list(least)
    for _ in range(room - sum(least)):
        narrow = [place for place, width in enumerate(widths) if width < most[place]]
        if not narrow:
            break
        widths[min(narrow, key=lambda place: widths[place])] += 1
    return widths


def _lines(column: TableColumn) -> Iterator[str]:
    for cell in (column.header, *column.cells):
        yield from str(cell).splitlines()


def _words(column: TableColumn) -> Iterator[str]:
    for line in _lines(column):
        yield from line.split()


def _natural_width(columns: Sequence[Column]) -> int:
    console = Console(file=StringIO(), width=UNLIMITED, color_system=None)
    return console.measure(_table(columns)).maximum


def _printed(what: RenderableType, width: int) -> str:
    file = StringIO()
    console = Console(
        file=file, width=max(width, NARROWEST), color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(what)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())
