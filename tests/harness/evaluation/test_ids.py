"""Ids of two files, compared and listed."""

from harness.evaluation.ids import listing, mismatches


def test_a_long_list_is_cut() -> None:
    assert listing(["a", "b"]) == "a, b"
    assert listing(map(str, range(53))).endswith("48, 49 and 3 more")


def test_missing_and_unknown_ids_are_counted_and_named() -> None:
    assert mismatches(["1", "2"], {"1": 0, "2": 0}, "problems", "prediction") == []
    assert mismatches(["1", "2"], {"2": 0, "9": 0, "8": 0}, "problems", "prediction") == [
        "1 problems without a prediction: 1",
        "2 predictions for unknown problems: 9, 8",
    ]
