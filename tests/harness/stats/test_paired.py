"""Differences between two methods: hand-computed values, symmetries, and intervals that hold in simulated data."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import ttest_1samp

from harness.stats import POWER, Difference, over_problems, over_seeds, over_seeds_and_problems
from harness.stats.paired import Booleans

# Shape suffixes: S seeds, N problems.


def swapped(one: Difference) -> tuple[object, ...]:
    """Return what a difference must be after A and B have changed places."""
    low, high = (None if end is None else pytest.approx(-end, abs=1e-9) for end in (one.high, one.low))
    p_value, size = (None if x is None else pytest.approx(x, abs=1e-9) for x in (one.p_value, one.detectable))
    return pytest.approx(-one.value), low, high, p_value, size


def fields(one: Difference) -> tuple[object, ...]:
    return one.value, one.low, one.high, one.p_value, one.detectable


# ---------------------------------------------------------------- over seeds


def test_seeds_by_hand() -> None:
    found = over_seeds({0: 10.0, 1: 12.0, 2: 14.0, 9: 0.0}, {0: 9.0, 1: 10.0, 2: 11.0, 8: 99.0})
    assert found.seeds == 3 and found.value == pytest.approx(2.0)
    # t = 2 / (1 / sqrt 3), two degrees of freedom: p = 1 - t / sqrt(t^2 + 2)
    t = 2 * math.sqrt(3)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(t * t + 2))
    reach = 4.302653 / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(2 - reach, abs=1e-5), pytest.approx(2 + reach, abs=1e-5))


def test_seeds_that_test_nothing() -> None:
    for a, b in (({0: 1.0}, {0: 2.0}), ({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0})):  # one pair; equal differences
        found = over_seeds(a, b)
        assert (found.low, found.high, found.p_value, found.detectable) == (None,) * 4
        assert found.is_significant is None and found.value == -1
    assert over_seeds({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p_value == 1
    with pytest.raises(ValueError, match="no seed in common"):
        over_seeds({0: 1.0}, {1: 1.0})


@given(st.dictionaries(st.integers(0, 9), st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1))
def test_seeds_are_antisymmetric(pairs: dict[int, tuple[float, float]]) -> None:
    a, b = ({seed: pair[k] for seed, pair in pairs.items()} for k in (0, 1))
    assert fields(over_seeds(b, a)) == swapped(over_seeds(a, b))


# ---------------------------------------------------------------- over problems


def test_mcnemar_by_hand() -> None:
    # Only A answers eight problems correctly, only B two: 2 * P(X <= 2 | 10, 1/2) = 112 / 1024.
    a_N = np.array([i < 8 or i >= 10 for i in range(20)])
    b_N = np.array([i >= 8 for i in range(20)])
    found = over_problems(a_N, b_N)
    assert found.p_value == pytest.approx(112 / 1024)
    assert found.value == pytest.approx(100 * 6 / 20) and (found.seeds, found.problems) == (1, 20)
    # With one problem more for each: 9 / 22 and 3 / 22.
    reach = 1.959964 * math.sqrt((9 / 22 + 3 / 22 - (6 / 22) ** 2) / 22)
    ends = 100 * (6 / 22 - reach), 100 * (6 / 22 + reach)
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_antisymmetric_and_its_interval_excludes_0_where_p_does(pairs: list[tuple[bool, bool]]) -> None:
    a_N, b_N = np.array(pairs).T
    found = over_problems(a_N, b_N)
    assert fields(over_problems(b_N, a_N)) == swapped(found)
    assert found.p_value is not None and 0 <= found.p_value <= 1 + 1e-12
    assert found.low is not None and found.high is not None
    assert -100 <= found.low <= found.value <= found.high <= 100
    assert not found.is_significant or not found.low <= 0 <= found.high
    assert over_problems(a_N, a_N).p_value == 1


@pytest.mark.parametrize(("only_a", "only_b"), [(0.449, 0.008), (0.7, 0.012), (0.12, 0.0), (0.25, 0.05), (0.1, 0.1)])
def test_the_interval_of_one_seed_contains_the_truth_as_often_as_it_says(only_a: float, only_b: float) -> None:
    rng, truth, inside = np.random.default_rng(0), 100 * (only_a - only_b), 0
    for _ in range(1000):
        draws_N = rng.random(1000)
        found = over_problems(draws_N < only_a, (only_a <= draws_N) & (draws_N < only_a + only_b))
        assert found.low is not None and found.high is not None
        inside += found.low <= truth <= found.high
    assert 0.93 < inside / 1000 < 0.97  # the standard error is 0.7 points


def test_mcnemar_wants_the_same_problems() -> None:
    for a_N, b_N in (([True], [True, False]), ([], [])):
        with pytest.raises(ValueError, match="the same problems"):
            over_problems(np.array(a_N, dtype=bool), np.array(b_N, dtype=bool))


# ---------------------------------------------------------------- over seeds and problems


def simulated(
    rng: np.random.Generator, shape: tuple[int, int], gain: float, by_seed: float, by_problem: float
) -> tuple[Booleans, Booleans]:
    """Return answers of two methods whose logits differ by `gain`, by effects of seeds and of problems, and at random.

    Args:
        rng: random numbers.
        shape: numbers of seeds and of problems.
        gain: how much higher the logits of the first method are.
        by_seed, by_problem: standard deviations of the effects that each method has of its own.
    """
    seeds, problems = shape
    ability_N = rng.normal(0, 1.5, problems)

    def answers(level: float) -> Booleans:
        logits_SN = level + ability_N + rng.normal(0, by_problem, problems) + rng.normal(0, by_seed, (seeds, 1))
        return np.asarray(rng.random(shape) < expit(logits_SN))

    return answers(gain), answers(0.0)


def expected(gain: float, by_seed: float, by_problem: float) -> float:
    """Return the true difference in points that `simulated` has."""
    deviation = math.sqrt(1.5**2 + by_seed**2 + by_problem**2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    shares = (weights @ expit(level + deviation * nodes) / weights.sum() for level in (gain, 0.0))
    high, low = shares
    return 100 * float(high - low)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("by_seed", "by_problem"), [(0.0, 0.0), (0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_the_interval_contains_the_truth_as_often_as_it_says(seeds: int, by_seed: float, by_problem: float) -> None:
    rng = np.random.default_rng(seeds)
    truth, inside, rejected = expected(0.1, by_seed, by_problem), 0, 0
    for _ in range(300):
        found = over_seeds_and_problems(*simulated(rng, (seeds, 200), 0.1, by_seed, by_problem))
        assert found.low is not None and found.high is not None
        inside += found.low <= truth <= found.high
        none = over_seeds_and_problems(*simulated(rng, (seeds, 200), 0.0, by_seed, by_problem))
        rejected += bool(none.is_significant)
    # 95 % with a standard error of 1.3 points; the approximation costs a point where seeds differ much.
    assert inside / 300 > 0.915
    assert rejected / 300 < 0.075


def test_two_seeds_seldom_show_a_difference_that_is_not_there() -> None:
    rng = np.random.default_rng(0)
    found = [over_seeds_and_problems(*simulated(rng, (2, 1000), 0.0, 0.2, 1.5)).is_significant for _ in range(300)]
    assert np.mean(found) < 0.05


@pytest.mark.parametrize("problems", [3, 5])
def test_few_problems_seldom_show_a_difference_that_is_not_there(problems: int) -> None:
    rng = np.random.default_rng(problems)
    rejected = 0
    for _ in range(1500):  # which method is right depends much on the problem, and not on the seed
        chance_N = rng.random((2, problems))
        a_SN, b_SN = (rng.random((5, problems)) < one_N for one_N in chance_N)
        rejected += bool(over_seeds_and_problems(a_SN, b_SN).is_significant)
    assert rejected / 1500 < 0.075


def test_the_detectable_difference_is_detected_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    shape, by_seed = (5, 400), 0.0
    sizes = [over_seeds_and_problems(*simulated(rng, shape, 0.0, by_seed, 0.5)).detectable for _ in range(100)]
    size = float(np.median([one for one in sizes if one is not None]))
    gain = min(np.linspace(0, 2, 400), key=lambda g: abs(expected(g, by_seed, 0.5) - size))
    found = [over_seeds_and_problems(*simulated(rng, shape, gain, by_seed, 0.5)).is_significant for _ in range(200)]
    assert abs(np.mean(found) - POWER) < 0.12


@given(st.integers(2, 5), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_swapping_the_methods_or_the_order_changes_only_the_sign(seeds: int, problems: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a_SN, b_SN = simulated(rng, (seeds, problems), 0.5, 0.3, 0.3)
    found = over_seeds_and_problems(a_SN, b_SN)
    assert fields(over_seeds_and_problems(b_SN, a_SN)) == swapped(found)
    order_S, order_N = rng.permutation(seeds), rng.permutation(problems)
    moved = over_seeds_and_problems(a_SN[order_S][:, order_N], b_SN[order_S][:, order_N])
    assert moved.value == pytest.approx(found.value) and moved.p_value == pytest.approx(found.p_value)


def test_without_effects_of_problems_it_is_the_t_test_over_seeds() -> None:
    # Each seed has its own difference, and within a seed the same problems differ as at random.
    rng = np.random.default_rng(1)
    b_SN = np.zeros((4, 4000), dtype=bool)
    a_SN = rng.random((4, 4000)) < np.array([[0.1], [0.2], [0.3], [0.4]])
    found = over_seeds_and_problems(a_SN, b_SN)
    plain = ttest_1samp(100 * a_SN.mean(axis=1), 0.0)
    assert found.p_value == pytest.approx(plain.pvalue, rel=0.02)


def test_answers_that_all_agree() -> None:
    a_SN = np.eye(3, 8, dtype=bool)
    found = over_seeds_and_problems(a_SN, a_SN)
    assert (found.value, found.p_value, found.low, found.is_significant) == (0.0, 1.0, None, False)


def test_seeds_and_problems_wants_a_table() -> None:
    for shape in ((1, 5), (5, 1), (4,)):
        with pytest.raises(ValueError, match="at least two of each"):
            over_seeds_and_problems(np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool))
