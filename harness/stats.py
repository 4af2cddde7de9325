"""Statistics over seeds and over problems. Values in percent unless a docstring says otherwise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairedTest:
    """`difference` = mean of A minus mean of B (percentage points), two-sided p-value, number of pairs."""

    difference: float
    p_value: float | None
    n: int


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("the mean of no values")
    return float(np.mean(values))


def sample_std(values: Sequence[float]) -> float | None:
    """Sample standard deviation (divisor n - 1); None for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Confidence interval of the median by the sign test: distribution free, its ends are values.

    Args:
        values: in any unit, taken as independent.
        confidence: at least this.

    Returns:
        None where the values are too few, at 95 % fewer than six.
    """
    from scipy.stats import quantile_test  # a second of import that tables do not need

    low, high = quantile_test(np.asarray(values, dtype=np.float64), p=0.5).confidence_interval(confidence)
    return None if np.isnan(low) or np.isnan(high) else (float(low), float(high))


def binomial_stderr(percent: float, n: int) -> float | None:
    """Standard error of an accuracy over n problems, 100 * sqrt(p (1 - p) / n); None if n is 0.

    Raises:
        ValueError: the accuracy is outside 0..100 or n is negative.
    """
    if not 0 <= percent <= 100 or n < 0:
        raise ValueError(f"an accuracy of {percent} % over {n} problems")
    share = percent / 100
    return 100 * math.sqrt(share * (1 - share) / n) if n else None


def mcnemar(a: Mapping[str, bool], b: Mapping[str, bool]) -> PairedTest:
    """Exact McNemar test of two methods on the same problems.

    Each problem that exactly one of the two answers correctly is a fair coin under the null hypothesis.

    Args:
        a, b: problem id -> answered correctly.

    Raises:
        ValueError: not the same problems, or none.
    """
    from scipy.stats import binomtest  # a second of import that tables do not need

    if a.keys() != b.keys() or not a:
        raise ValueError("the two methods must have answered the same problems, at least one")
    only_a = sum(a[key] and not b[key] for key in a)
    only_b = sum(b[key] and not a[key] for key in a)
    split = only_a + only_b
    p_value = float(binomtest(only_a, split).pvalue) if split else 1.0
    return PairedTest(100 * (only_a - only_b) / len(a), p_value, len(a))


def paired_seeds(a: Mapping[int, float], b: Mapping[int, float]) -> PairedTest:
    """Paired t-test of two methods over the seeds that both have.

    Args:
        a, b: seed -> accuracy.

    Returns:
        p_value None where it is not defined: fewer than two pairs, or differences that are all equal.

    Raises:
        ValueError: no seed in common.
    """
    from scipy.stats import ttest_1samp

    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise ValueError("the two methods have no seed in common")
    differences = np.array([a[seed] - b[seed] for seed in seeds])
    p_value = None
    if len(seeds) > 1 and not np.allclose(differences, differences[0]):
        p_value = float(ttest_1samp(differences, 0.0).pvalue)
    return PairedTest(float(differences.mean()), p_value, len(seeds))
