"""One row of values: its mean, its spread, and an interval of its median."""

import math
from collections.abc import Sequence

import numpy as np


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
    with np.errstate(over="ignore"):  # the spread of absurdly large values is infinite
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
    from scipy.stats import quantile_test  # importing scipy.stats takes a second, and tables do not need it

    low, high = quantile_test(np.asarray(values, dtype=np.float64), p=0.5).confidence_interval(confidence)
    return None if np.isnan(low) or np.isnan(high) else (float(low), float(high))


def next_run_error(values: Sequence[float], confidence: float = 0.95) -> float:
    """Return how far the value of one more run may be from the mean of the values, by the t distribution.

    Args:
        values: at least two values of runs that differ by chance.
        confidence: probability with which the next value is not further away.

    Raises:
        ValueError: there are fewer than two values.
    """
    from scipy.special import stdtrit

    spread = sample_std(values)
    if spread is None:
        raise ValueError("one value does not say how far others may be from it")
    return float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * spread * math.sqrt(1 + 1 / len(values))


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
