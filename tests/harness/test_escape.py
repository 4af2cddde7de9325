"""Text from outside in each kind of output."""

import csv
import io
import itertools
import re
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from harness.escape import (
    csv_cell,
    html,
    is_visible,
    latex,
    latex_comment,
    markdown,
    message,
    path_part,
    text_table,
    toml,
    visible,
    visible_lines,
)
from tests.latex import compile_latex

ANY = st.text(st.characters(exclude_categories=()))
"""Any text, with control characters and lone surrogates."""
NASTY = "a|b\n\\input{x}\x1b[31m<script>\u202e\udce9[x](y)"


@given(ANY)
def test_visible_text_is_one_line_of_utf8_without_control_characters(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert visible(shown) == shown


@given(st.dictionaries(ANY, ANY | st.lists(ANY | st.integers() | st.dictionaries(ANY, ANY))))
def test_a_value_is_visible_if_all_its_text_is(value: dict[str, object]) -> None:
    def texts(part: object) -> Iterator[str]:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            yield from itertools.chain.from_iterable(texts(inner) for pair in part.items() for inner in pair)
        elif isinstance(part, list):
            yield from itertools.chain.from_iterable(map(texts, part))

    assert is_visible(value) == all(visible(text) == text for text in texts(value))


@given(ANY)
def test_a_part_of_a_path_is_plain_and_short(text: str) -> None:
    for name in (text, text * 200):
        part = path_part(name)
        assert re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]{0,99}", part) and path_part(part) == part


def test_long_names_that_differ_at_their_end_are_different_parts() -> None:
    assert path_part("x" * 200 + "a") != path_part("x" * 200 + "b") != "x" * 100


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())))
def test_toml_in_a_terminal_shows_its_characters_and_means_the_same(content: dict[str, object]) -> None:
    shown = toml(tomli_w.dumps(content))
    assert visible_lines(shown) == shown
    assert tomllib.loads(shown) == content


def test_visible_text_keeps_what_people_write() -> None:
    assert visible("LLaMA-7B ± ü 模型 👩‍🔬") == "LLaMA-7B ± ü 模型 👩‍🔬"
    assert visible("a\x1b[31m\n\udce9") == r"a\x1b[31m\n\udce9"
    assert visible_lines("one\ntwo\x07") == "one\ntwo\\x07"


@given(ANY)
def test_a_message_is_short(text: str) -> None:
    assert len(message(text * 500)) < 2_100


def test_a_message_keeps_its_beginning_and_its_end() -> None:
    shown = message(f"--results {'x' * 5000}: cannot be written; choose another place")
    assert shown.startswith("--results xxx") and shown.endswith("x: cannot be written; choose another place")


@pytest.mark.parametrize("style", ["github", "latex_booktabs", "html"])
@given(cell=ANY)
def test_no_cell_changes_the_shape_of_a_table(style: str, cell: str) -> None:
    plain = text_table([("a", "b"), ("c", "d")], ("x", "y"), style=style)
    odd = text_table([(cell, "b"), ("c", cell)], (cell, "y"), style=style)
    assert odd.count("\n") == plain.count("\n")
    odd.encode()
    if style == "github":
        assert {line.count("|") for line in odd.splitlines()} == {3}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


@given(ANY)
def test_no_text_starts_a_tag(text: str) -> None:
    for shown in (html(text), markdown(text), markdown(f"<{text}>"), html(f"<script>{text}")):
        parser = _Tags()
        parser.feed(shown)
        assert not parser.found


def test_markdown_starts_no_heading_and_no_image() -> None:
    assert markdown("# x") == "&#35; x"
    assert "](" not in markdown("![x](https://example.org/pixel)")
    assert markdown("p < 0.05, <0.001") == "p < 0.05, <0.001"


def test_every_letter_compiles_in_latex_or_is_a_number(tmp_path: Path) -> None:
    assert latex("Größe ≤ 5 | 数") == r"Größe U+2264 5 \textbar{} U+6570"
    compile_latex(" ".join(latex(chr(code)) for code in range(0x20, 0x2500)), tmp_path, strict=False)


@given(ANY)
def test_a_comment_of_latex_is_one_line(text: str) -> None:
    assert len(latex_comment(text).splitlines()) == 1


@given(ANY)
def test_no_cell_of_csv_is_a_formula(text: str) -> None:
    written = io.StringIO()
    csv.writer(written).writerow([csv_cell(text), "end"])
    (row,) = csv.reader(io.StringIO(written.getvalue()))
    assert row[1] == "end" and not row[0].startswith(("=", "+", "-", "@", "\t", "\r"))


def test_numbers_of_csv_stay_numbers() -> None:
    assert csv_cell(-0.5) == -0.5 and csv_cell(None) is None and csv_cell("=1+1") == "'=1+1"
    assert csv_cell(NASTY).startswith("a|b\\n")
