"""Tables that fit the width of a terminal."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.escape import text_table
from harness.terminal import (
    UNLIMITED,
    Column,
    bullets,
    document,
    entry,
    fitting,
    paragraph,
    table_lines,
    terminal_width,
)

WORD = st.text("abcdefgh", min_size=1, max_size=30)
PHRASE = st.lists(WORD, min_size=1, max_size=12).map(" ".join)


@given(st.integers(40, 120), st.lists(st.tuples(WORD, WORD), min_size=1, max_size=8))
def test_a_table_fits_and_keeps_the_first_columns(width: int, pairs: list[tuple[str, str]]) -> None:
    columns = [Column(head, [cell], keep=place) for place, (head, cell) in enumerate(pairs)]
    shown = fitting(columns, width)
    assert shown[0] is columns[0]
    assert [columns.index(column) for column in shown] == sorted(columns.index(column) for column in shown)
    lines = table_lines(shown, width).splitlines()
    assert max(map(len, lines)) <= width
    # The next column is left out only because it has no room.
    left = [column for column in columns if not any(column is one for one in shown)]
    if left:
        wider = [column for column in columns if column is left[0] or any(column is one for one in shown)]
        assert max(map(len, table_lines(wider, UNLIMITED).splitlines())) >= width


def test_a_cell_that_is_too_long_is_wrapped_and_not_cut() -> None:
    text = table_lines([Column("Method", ["x" * 95])], 40)
    assert text.count("x") == 95 and "…" not in text


def test_text_from_outside_is_neither_markup_nor_a_code_of_the_terminal() -> None:
    text = table_lines([Column("[bold]A[/bold]", ["\x1b[31mred", ":smile:"])], 60)
    assert "[bold]A[/bold]" in text and ":smile:" in text and "\x1b" not in text and r"\x1b[31mred" in text
    assert paragraph("[red]a[/red]", 60, 2) == "  [red]a[/red]\n"


@given(st.integers(40, 120), st.lists(st.lists(PHRASE, min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_document_fits_and_nothing_of_its_tables_is_lost(width: int, rows: list[list[str]]) -> None:
    text = document(text_table(rows, ("One", "Two", "Three")), width)
    assert max(map(len, text.splitlines())) <= width
    kept = "".join(text.split())
    given = "".join(" ".join(cell for row in rows for cell in row).split())
    assert len(kept) - kept.count("─") == len("OneTwoThree") + len(given)


def test_a_column_of_one_long_word_cuts_no_other_column() -> None:
    rows = [("protocol-unpublished", *("Answers that cannot be read are wrong",) * 3)]
    text = document(text_table(rows, ("Id", "Says", "Against", "Taken")), 80)
    assert text.split().count("cannot") == text.split().count("wrong") == 3


@given(st.integers(40, 120), st.lists(st.text("abc", min_size=1, max_size=28), min_size=1).map(" ".join))
def test_an_entry_fits_and_breaks_no_word(width: int, text: str) -> None:
    lines = entry("ok  memory  ", text, width).splitlines()
    assert max(map(len, lines)) <= width and lines[0].startswith("ok  memory  ")
    assert all(line.startswith(" " * 12) for line in lines[1:])
    assert " ".join(lines).split()[2:] == text.split()


def test_a_table_of_a_document_breaks_no_word_that_has_room() -> None:
    heads = ("Column", "first", "second", "Difference", "95 % interval", "Detectable", "Verdict")
    text = document(text_table([("NAT", "53.47", "54.29", "-0.82", "-6.70 to +5.06", "7.73", "lower " * 9)], heads), 60)
    assert {"Column", "second", "Difference", "Detectable", "Verdict"} <= set(text.split())


def test_lists_keep_their_text_in_line() -> None:
    assert bullets(["[red] " + "word " * 12], 40).splitlines()[1].startswith("  word")
    assert document("# Head\n\n- one\n- two", 40).count("•") == 2 and not bullets([], 40)


def test_a_file_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal_width() is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "93")
    assert terminal_width() == 93
