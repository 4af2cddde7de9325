"""Means, spreads and intervals against values computed by hand."""

import math

import numpy as np
import pytest

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


def test_the_next_run_is_within_its_error_as_often_as_said():
    rng = np.random.default_rng(0)
    draws = rng.normal(50, 2, (2000, 4))
    inside = [abs(stats.mean(list(row[:3])) - row[3]) <= stats.next_run_error(list(row[:3])) for row in draws]
    assert 0.935 < np.mean(inside) < 0.965
    with pytest.raises(ValueError):
        stats.next_run_error([1.0])
