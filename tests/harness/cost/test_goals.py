"""Goals: how they are read, and when they are met."""

import pytest

from harness.cost.goals import Goal, Verdict, parse_goal
from harness.cost.stopwatch import spread
from harness.errors import UserError

ROUNDS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
"""Six rounds: the confidence interval of their median is their whole range."""


def test_a_goal_is_read_from_its_text():
    goal = parse_goal("inference:some-method-plain/other_one=1.05")
    assert goal == Goal("inference", "some-method-plain", "other_one", 1.05)
    assert str(goal) == "inference:some-method-plain/other_one=1.05"


@pytest.mark.parametrize("text", ["a/b=1", "train:a=1", "train:a/b", "train:a/b=fast", "test:a/b=1", "train:a/b=-1"])
def test_any_other_text_is_rejected_in_one_line(text):
    with pytest.raises(UserError, match=rf"^--goal {text}: give PHASE:METHOD/METHOD=LIMIT, where"):
        parse_goal(text)


@pytest.mark.parametrize(
    ("limit", "rounds", "result"),
    [
        (1.5, ROUNDS, "met"),
        (1.49, ROUNDS, "undecided"),
        (1.0, ROUNDS, "undecided"),
        (0.99, ROUNDS, "missed"),
        (9.0, ROUNDS[:5], "undecided"),
    ],
)
def test_a_goal_is_met_or_missed_where_the_whole_interval_says_so(limit, rounds, result):
    assert Verdict(Goal("train", "a", "b", limit), spread(rounds)).result == result
