"""Statistics against hand-computed values and their own symmetries."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import stats


def test_mean_by_hand():
    assert stats.mean([1.0, 2.0, 6.0]) == 3.0
    with pytest.raises(ValueError):
        stats.mean([])


def test_sample_std_by_hand():
    assert stats.sample_std([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt(7))
    assert stats.sample_std([1.0]) is None


def test_binomial_stderr_by_hand():
    assert stats.binomial_stderr(50.0, 100) == pytest.approx(5.0)
    assert stats.binomial_stderr(100.0, 10) == 0
    assert stats.binomial_stderr(0.0, 0) is None


@pytest.mark.parametrize(("percent", "n"), [(101.0, 1), (-1.0, 1), (50.0, -1)])
def test_an_accuracy_that_does_not_exist(percent, n):
    with pytest.raises(ValueError):
        stats.binomial_stderr(percent, n)


def test_the_interval_of_a_median_is_two_of_the_values():
    # Of six values, all lie on one side of the median with probability 2 / 2^6 = 3.1 %; of five, with 6.25 %.
    assert stats.median_interval([6.0, 1.0, 5.0, 2.0, 4.0, 3.0]) == (1.0, 6.0)
    assert stats.median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None


def test_mcnemar_by_hand():
    # Only A answers eight problems correctly, only B two: 2 * P(X <= 2 | 10, 1/2) = 112 / 1024.
    a = {str(i): i < 8 or i >= 10 for i in range(20)}
    b = {str(i): i >= 8 for i in range(20)}
    test = stats.mcnemar(a, b)
    assert test.p_value == pytest.approx(112 / 1024)
    assert test.difference == pytest.approx(100 * 6 / 20)
    assert test.n == 20


@given(st.dictionaries(st.text(max_size=3), st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_mcnemar_is_antisymmetric(answers):
    a = {key: pair[0] for key, pair in answers.items()}
    b = {key: pair[1] for key, pair in answers.items()}
    one, other = stats.mcnemar(a, b), stats.mcnemar(b, a)
    assert one.difference == -other.difference
    assert one.p_value == pytest.approx(other.p_value) and 0 <= one.p_value <= 1 + 1e-12
    assert stats.mcnemar(a, a).p_value == 1


def test_mcnemar_wants_the_same_problems():
    for a, b in (({"1": True}, {"2": True}), ({}, {})):
        with pytest.raises(ValueError):
            stats.mcnemar(a, b)


def test_paired_seeds_by_hand():
    test = stats.paired_seeds({0: 10.0, 1: 12.0, 2: 14.0, 9: 0.0}, {0: 9.0, 1: 10.0, 2: 11.0, 8: 99.0})
    assert test.n == 3 and test.difference == pytest.approx(2.0)
    # t = 2 / (1 / sqrt 3), two degrees of freedom: p = 1 - t / sqrt(t^2 + 2)
    t = 2 * math.sqrt(3)
    assert test.p_value == pytest.approx(1 - t / math.sqrt(t * t + 2))


def test_a_paired_test_without_a_p_value():
    assert stats.paired_seeds({0: 1.0}, {0: 2.0}).p_value is None  # one pair
    assert stats.paired_seeds({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}).p_value is None  # equal differences


def test_paired_seeds_want_a_seed_in_common():
    with pytest.raises(ValueError):
        stats.paired_seeds({0: 1.0}, {1: 1.0})
