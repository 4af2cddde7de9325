"""Reading JSON that is not trusted."""

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
