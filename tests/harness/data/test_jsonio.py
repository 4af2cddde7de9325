"""Reading JSON that is not trusted."""

import json
import resource
import time

import pytest

from harness.data.jsonio import MOST_COMMAS, MOST_CONTAINERS, NotJsonError, parse_json, parse_json_lines, read_json
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


@pytest.mark.parametrize("content", ['{"a": 1}'.encode("utf-16"), b'{"a": "\xed\xa0\x80"}', b'{"a": "\xff"}'])
def test_bytes_that_are_not_utf8_are_no_json(content: bytes) -> None:
    with pytest.raises(NotJsonError, match=r"^it: not valid JSON \("):
        parse_json(content, "it")


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": 1}', "it") == {"a": 1}


def test_a_deep_place_is_found_in_one_walk_and_cut() -> None:
    text = "[" * 900 + r'"\ud800", "' + "x" * 1_000_000 + '"' + "]" * 900
    before = time.process_time()
    with pytest.raises(UserError) as refused:
        parse_json(text, "a.json")
    assert time.process_time() - before < 1  # looked at once at every level, it takes several seconds
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("part", "times", "found"),
    [
        ("[],", 5_000_000, "5,000,001 arrays, objects and lines"),
        ('{"a":0},', 4_000_000, "4,000,001 arrays, objects and lines"),
        ("1,", 21_000_000, "21,000,000 commas"),
    ],
)
def test_json_of_very_many_values_is_refused_before_it_takes_memory(part: str, times: int, found: str) -> None:
    text = f"[{part * times}1]"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        UserError, match=rf"^a\.json: has {found}, more than the \S+ that are read; give a smaller file$"
    ):
        parse_json(text, "a.json")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_very_many_lines_are_refused() -> None:
    with pytest.raises(UserError, match=r"^a\.jsonl: has 4,000,001 arrays, objects and lines"):
        parse_json_lines(b"1\n" * 4_000_001, "a.jsonl")


def test_a_file_as_large_as_the_split_file_of_coco_is_read() -> None:
    tokens = ["word"] * 12
    sentences = [{"raw": "a word, and more", "tokens": tokens, "imgid": 0, "sentid": 0}] * 5
    image = {"filename": "0.jpg", "split": "val", "cocoid": 1, "imgid": 0, "sentids": [0] * 5, "sentences": sentences}
    text = json.dumps(image)
    assert 123_287 * (text.count("[") + text.count("{")) < MOST_CONTAINERS
    assert 123_287 * (text.count(",") + 1) < MOST_COMMAS


def test_a_key_given_twice_hides_no_error_behind_it() -> None:
    with pytest.raises(NotJsonError):
        parse_json('{"x": 1, "x": 2}\n{"x": 1}', "a.jsonl")
