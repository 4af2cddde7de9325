"""Statistics over seeds and over problems. Values are in percent unless a docstring says otherwise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairedTest:
    """Result of a paired test of A against B.

    Attributes:
        difference: mean of A minus mean of B, in percentage points.
        p_value: two-sided; None where it is undefined.
        n: number of pairs.
    """

    difference: float
    p_value: float | None
    n: int


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there are no values to take the mean of")
    return float(np.mean(values))


def sample_std(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, with divisor n - 1; None for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return a confidence interval of the median by the sign test, which assumes no distribution.

    Args:
        values: independent values in any unit.
        confidence: smallest probability that the interval contains the median.

    Returns:
        The ends of the interval, which are two of the values; None where there are too few values: at 95 % confidence,
        fewer than six.
    """
    from scipy.stats import quantile_test  # importing scipy takes a second, and tables do not need it

    low, high = quantile_test(np.asarray(values, dtype=np.float64), p=0.5).confidence_interval(confidence)
    return None if np.isnan(low) or np.isnan(high) else (float(low), float(high))


def binomial_stderr(percent: float, n: int) -> float | None:
    """Return the standard error of an accuracy, 100 · sqrt(p (1 - p) / n), in percent; None if n is 0.

    Args:
        percent: the accuracy.
        n: number of problems.

    Raises:
        ValueError: the accuracy is outside 0..100, or n is negative.
    """
    if not 0 <= percent <= 100 or n < 0:
        raise ValueError(f"an accuracy of {percent} % over {n} problems is impossible; give 0 to 100 % and n >= 0")
    share = percent / 100
    return 100 * math.sqrt(share * (1 - share) / n) if n else None


def mcnemar(a: Mapping[str, bool], b: Mapping[str, bool]) -> PairedTest:
    """Compare two methods on the same problems with the exact McNemar test.

    Under the null hypothesis, each problem that only one of them answers correctly is a fair coin toss.

    Args:
        a, b: problem id -> whether the method answered correctly.

    Raises:
        ValueError: the problems differ, or there are none.
    """
    from scipy.stats import binomtest  # importing scipy takes a second, and tables do not need it

    if a.keys() != b.keys() or not a:
        raise ValueError("the two methods must have answered the same problems, and at least one")
    only_a = sum(a[key] and not b[key] for key in a)
    only_b = sum(b[key] and not a[key] for key in a)
    split = only_a + only_b
    p_value = float(binomtest(only_a, split).pvalue) if split else 1.0
    return PairedTest(100 * (only_a - only_b) / len(a), p_value, len(a))


def paired_seeds(a: Mapping[int, float], b: Mapping[int, float]) -> PairedTest:
    """Compare two methods over the seeds that both have, with the paired t-test.

    Args:
        a, b: seed -> accuracy.

    Returns:
        The test. Its p-value is None for fewer than two pairs, and where all differences are equal.

    Raises:
        ValueError: the methods have no seed in common.
    """
    from scipy.stats import ttest_1samp  # see `median_interval`

    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise ValueError("the two methods have no seed in common")
    differences = np.array([a[seed] - b[seed] for seed in seeds])
    p_value = None
    if len(seeds) > 1 and not np.allclose(differences, differences[0]):
        p_value = float(ttest_1samp(differences, 0.0).pvalue)
    return PairedTest(float(differences.mean()), p_value, len(seeds))
