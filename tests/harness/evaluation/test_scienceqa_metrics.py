"""Reading answers and counting columns."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.problem import Problem
from harness.errors import UserError
from harness.evaluation.scienceqa_metrics import (
    COLUMNS,
    columns_of,
    score_scienceqa,
)

PLAIN = Problem("1", "test", "Q?", ("a", "b", "c"), 1, subject="natural science", grade="grade6")


def test_columns():
    assert columns_of(PLAIN) == ("NAT", "NO", "G1-6", "Avg")
    both = replace(PLAIN, hint="h", image=Path("i"), subject="social science", grade="grade7")
    assert columns_of(both) == ("SOC", "TXT", "IMG", "G7-12", "Avg")
    assert columns_of(replace(PLAIN, subject=None, grade=None)) == ("NO", "Avg")
    assert columns_of(replace(PLAIN, subject="language science", grade="grade12"))[0::3] == ("LAN", "Avg")


def test_scores():
    problems = [replace(PLAIN, qid=str(i), hint="h" if i < 2 else "") for i in range(4)]
    scores = score_scienceqa(problems, {"0": 1, "1": 0, "2": 1, "3": None})
    metrics = scores.metrics
    assert tuple(metrics) == COLUMNS
    assert (metrics["Avg"].value, metrics["Avg"].n, scores.unreadable["Avg"]) == (50, 4, 1)
    assert math.isclose(metrics["Avg"].stderr, 100 * math.sqrt(0.25 / 4))
    assert (metrics["TXT"].value, metrics["TXT"].n) == (50, 2)
    assert metrics["IMG"].value is None and "no problem" in metrics["IMG"].reason


def test_choice_that_does_not_exist_counts_as_unread():
    scores = score_scienceqa([PLAIN], {"1": 3})
    assert (scores.metrics["Avg"].value, scores.unreadable["Avg"]) == (0, 1)
    assert score_scienceqa([PLAIN], {"1": -1}).unreadable["Avg"] == 1


def test_missing_metadata_makes_the_column_null():
    problems = [PLAIN, replace(PLAIN, qid="2", subject=None), replace(PLAIN, qid="3", grade=None)]
    scores = score_scienceqa(problems, {"1": 1, "2": 1, "3": 1})
    for column, missing in {"NAT": 1, "SOC": 1, "LAN": 1, "G1-6": 1, "G7-12": 1}.items():
        metric = scores.metrics[column]
        assert (metric.value, metric.stderr, scores.missing[column]) == (None, None, missing)
    assert scores.metrics["NO"].value == scores.metrics["Avg"].value == 100
    assert scores.missing["Avg"] == 0


def test_ids_must_match_and_are_listed():
    problems = [PLAIN, replace(PLAIN, qid="2"), replace(PLAIN, qid="7")]
    with pytest.raises(UserError, match=r"2 problems without a prediction: 2, 7; 1 predictions .*unknown.*: 9"):
        score_scienceqa(problems, {"1": 1, "9": 0})
    with pytest.raises(UserError, match="twice: 1"):
        score_scienceqa([PLAIN, PLAIN], {"1": 1})


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 2, None])), min_size=1, max_size=20))
def test_average_is_the_share_of_right_answers(pairs):
    problems = [replace(PLAIN, qid=str(i), answer=gold) for i, (gold, _) in enumerate(pairs)]
    scores = score_scienceqa(problems, {str(i): choice for i, (_, choice) in enumerate(pairs)})
    average = scores.metrics["Avg"]
    assert average.value == pytest.approx(100 * sum(gold == choice for gold, choice in pairs) / len(pairs))
    assert average.n == len(pairs) and scores.unreadable["Avg"] == sum(choice is None for _, choice in pairs)
