"""Reading JSON that is not trusted."""

import time

import pytest

from harness.data.jsonio import parse_json, parse_json_lines, read_json
from harness.errors import UserError


def test_a_key_that_is_given_twice_is_named():
    with pytest.raises(UserError, match=r"^a\.json: key given twice: x; keep one of them$"):
        parse_json('{"x": 1, "y": 2, "x": 3}', "a.json")


def test_lines_are_numbered_and_empty_ones_are_ignored():
    assert parse_json_lines(b'1\n\n{"a": 2}\n', "a.jsonl") == [("a.jsonl, line 1", 1), ("a.jsonl, line 3", {"a": 2})]


def test_a_line_separator_inside_a_string_does_not_end_the_line():
    assert parse_json_lines('"a\u2028b"'.encode(), "a.jsonl") == [("a.jsonl, line 1", "a\u2028b")]


def test_a_bad_line_is_named():
    with pytest.raises(UserError, match=r"^a\.jsonl, line 2: not valid JSON"):
        parse_json_lines(b"1\n{\n", "a.jsonl")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.json: cannot be read \(No such file"):
        read_json(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (r'{"a": [1, {"b": "\ud800"}]}', ", a, 1, b"),
        (r'[["fine"], {"c": {"\udc00": 1}}]', ", 1, c, a key"),
        (r'"\ud800"', ""),
    ],
)
def test_half_of_a_surrogate_pair_is_named_with_its_place(text: str, place: str) -> None:
    with pytest.raises(UserError, match=rf"^a\.json{place}: contains half of a surrogate pair; correct the file$"):
        parse_json(text, "a.json")


def test_a_deep_place_is_found_in_one_walk_and_cut() -> None:
    text = "[" * 900 + r'"\ud800", "' + "x" * 1_000_000 + '"' + "]" * 900
    before = time.process_time()
    with pytest.raises(UserError) as refused:
        parse_json(text, "a.json")
    assert time.process_time() - before < 1  # looked at once at every level, it takes several seconds
    assert len(str(refused.value)) < 300
