"""The format and the tables of the cost commands."""

import pytest

from harness.cost.output import is_json, markdown_table, rounded
from harness.errors import UserError


def test_the_format_is_json_or_markdown():
    assert is_json("json") and not is_json("markdown")


def test_another_format_is_rejected():
    with pytest.raises(UserError, match="--format csv: unknown format; choose markdown or json"):
        is_json("csv")


def test_cells_are_printed_as_they_are_and_aligned_as_asked():
    lines = markdown_table(("name", "count"), [("a", "1.50"), ("b", "12,000")], "lr").splitlines()
    assert lines[2:] == ["| a      |    1.50 |", "| b      |  12,000 |"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (3_879_040, "3.88 M"),
        (9_996_000, "10.0 M"),
        (99_960_000, "100 M"),
        (999_499_999, "999 M"),
        (999_600_000, "1.00 B"),
        (1_350_000_000_000, "1.35 T"),
    ],
)
def test_counts_are_rounded_for_reading(number: int, text: str) -> None:
    assert rounded(number) == text
