"""The difference between two methods that have seeds and problems in common: its size, interval, p-value and power.

Three models, by what is known. Each takes the paired differences A minus B, in percentage points.

- Seeds and problems: the difference on problem n with seed s is `mean + seed effect s + problem effect n + rest`. Both
  effects are random, so a result holds for other seeds and other problems of the same kind. The variance of the mean
  comes from the mean squares of the two-way table. The t distribution has the degrees of freedom of Hillis (2007,
  Statistics in Medicine 26:596), who solved the same problem for readers and cases, with a term for the problems, which
  he takes as many; their sum is Satterthwaite's. Few seeds may look alike by
  chance, so no interval is narrower than it would be if seeds had no effect. With two seeds there is one degree of
  freedom, as in a t-test over them, because the approximation would reject far more often than at 5 % there. A
  bootstrap that draws seeds and problems anew does worse with three to five seeds: its intervals are too narrow where
  seeds differ much, and too wide where they do not.
- Seeds alone: the paired t-test, for scores without right and wrong answers.
- Problems alone: the exact test of McNemar, for a single seed. It knows nothing of other seeds.

Problems count as independent of each other, and the mix of their kinds as fixed.

Shape suffixes: S seeds, N problems.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
"""Probability that an interval contains the true difference; a test is at the level of the rest, 5 %."""
POWER = 0.80
"""Probability with which the test finds a true difference of the size `detectable`."""
_NOTHING = 1e-12
"""What a sum of squares may be by rounding alone."""
Booleans = npt.NDArray[np.bool_]
Over = Literal["seeds and problems", "seeds", "problems", "nothing"]


@dataclass(frozen=True)
class Difference:
    """The difference between two methods, A minus B, in percentage points.

    Attributes:
        value: the mean difference.
        low, high: ends of the 95 % interval; None where it is undefined.
        p_value: two-sided; None where it is undefined.
        detectable: the true difference that this test would find with a probability of 80 %, by the variances that were
            estimated here; None where it is undefined.
        seeds: number of seeds that both have.
        problems: number of problems; None where single answers were not used.
        over: what varies in the model; `nothing` where none was asked, see `untested`.
    """

    value: float
    low: float | None
    high: float | None
    p_value: float | None
    detectable: float | None
    seeds: int
    problems: int | None
    over: Over

    @property
    def is_significant(self) -> bool | None:
        """Whether the p-value is below 5 %; None where there is none."""
        return None if self.p_value is None else self.p_value < 1 - CONFIDENCE


def over_seeds(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """Compare two methods over the seeds that both have, with the paired t-test.

    Args:
        a, b: seed -> score.

    Returns:
        The difference. It has no interval and no p-value for fewer than two pairs, and where all differences are equal.
        Where all are 0, p is 1.

    Raises:
        ValueError: the methods have no seed in common.
    """
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise ValueError("the two methods have no seed in common")
    d_S = np.array([a[seed] - b[seed] for seed in seeds])
    if len(seeds) < 2 or np.ptp(d_S) <= _NOTHING:
        same = len(seeds) > 1 and abs(d_S[0]) <= _NOTHING
        return replace(untested(a, b), p_value=1.0 if same else None, over="seeds")
    variance = float(d_S.var(ddof=1)) / len(seeds)
    return _by_t(float(d_S.mean()), [(variance, len(seeds) - 1)], len(seeds), None, "seeds")


def untested(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """Return the mean difference over the seeds that both methods have, without an interval and a p-value.

    Args:
        a, b: seed -> score.
    """
    seeds = a.keys() & b.keys()
    value = float(np.mean([a[seed] - b[seed] for seed in sorted(seeds)]))
    return Difference(value, None, None, None, None, len(seeds), None, "nothing")


def over_problems(a_N: Booleans, b_N: Booleans) -> Difference:
    """Compare two trained models on the same problems with the exact McNemar test.

    Under the null hypothesis, each problem that only one of them answers correctly is a fair coin toss. The interval is
    Wald's with the adjustment of Bonett and Price (2012, British Journal of Mathematical and Statistical Psychology
    65:479): one more problem that only A answers, and one more that only B does. The p-value is exact and the interval
    is not, so near 5 % the interval may exclude 0 where p does not say so.

    Args:
        a_N, b_N: whether each model answered each problem correctly.

    Returns:
        The difference. It has no detectable size where all answers agree.

    Raises:
        ValueError: the numbers of problems differ, or there are none.
    """
    from scipy.special import ndtri
    from scipy.stats import binomtest  # importing scipy.stats takes a second, and tables do not need it

    if a_N.shape != b_N.shape or not a_N.size:
        raise ValueError("the two methods must have answered the same problems, and at least one")
    d_N = a_N.astype(np.float64) - b_N
    only_a, only_b, n = int((d_N > 0).sum()), int((d_N < 0).sum()), d_N.size
    value = 100 * float(d_N.mean())
    center, split = (only_a - only_b) / (n + 2), (only_a + only_b + 2) / (n + 2)
    half = float(ndtri(0.5 + CONFIDENCE / 2)) * math.sqrt((split - center**2) / (n + 2))
    low, high = 100 * max(center - half, -1.0), 100 * min(center + half, 1.0)
    if not only_a + only_b:
        return Difference(value, low, high, 1.0, None, 1, n, "problems")
    p_value = float(binomtest(only_a, only_a + only_b).pvalue)
    detectable = _detectable(100 * math.sqrt(float(d_N.var()) / n), math.inf)
    return Difference(value, low, high, p_value, detectable, 1, n, "problems")


def over_seeds_and_problems(a_SN: Booleans, b_SN: Booleans) -> Difference:
    """Compare two methods on the same seeds and problems, both of them random.

    Args:
        a_SN, b_SN: whether the run of each method with each seed answered each problem correctly.

    Returns:
        The difference. It has no interval where all answers agree; p is then 1.

    Raises:
        ValueError: the shapes differ, or there are fewer than two seeds or two problems.
    """
    if a_SN.shape != b_SN.shape or a_SN.ndim != 2 or min(a_SN.shape) < 2:
        raise ValueError("give the answers of both methods for the same seeds and problems, at least two of each")
    d_SN = 100 * (a_SN.astype(np.float64) - b_SN)
    seeds, problems = d_SN.shape
    value = float(d_SN.mean())
    d_S, d_N = d_SN.mean(axis=1), d_SN.mean(axis=0)
    by_seed = problems * float(d_S.var(ddof=1))
    by_problem = seeds * float(d_N.var(ddof=1))
    rest_SN = d_SN - d_S[:, None] - d_N[None, :] + value
    rest = float((rest_SN**2).sum()) / ((seeds - 1) * (problems - 1))
    # The expected mean squares give the variance of the mean; that of the problems cannot be negative.
    of_problems = max(by_problem - rest, 0.0)
    spreads = []
    if (both := by_seed + of_problems) > _NOTHING:
        freedom = both**2 / (by_seed**2 / (seeds - 1) + of_problems**2 / (problems - 1))
        spreads.append((both / d_SN.size, min(freedom, 1.0) if seeds == 2 else freedom))
    if (without := rest + of_problems) > _NOTHING:
        of_rest = rest**2 / ((seeds - 1) * (problems - 1))
        spreads.append((without / d_SN.size, without**2 / (of_rest + of_problems**2 / (problems - 1))))
    if not spreads:
        p_value = 1.0 if abs(value) <= _NOTHING else None
        return Difference(value, None, None, p_value, None, seeds, problems, "seeds and problems")
    return _by_t(value, spreads, seeds, problems, "seeds and problems")


def _by_t(
    value: float, spreads: Sequence[tuple[float, float]], seeds: int, problems: int | None, over: Over
) -> Difference:
    """Return the difference with the interval and test of the t distribution.

    Args:
        value: the difference.
        spreads: the variance of the difference with its degrees of freedom; of several, the most cautious counts.
        seeds, problems, over: see `Difference`.
    """
    from scipy.special import stdtr, stdtrit

    errors = [(math.sqrt(variance), freedom) for variance, freedom in spreads]
    half = max(float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error for error, freedom in errors)
    p_value = max(2 * float(stdtr(freedom, -abs(value) / error)) for error, freedom in errors)
    detectable = max(_detectable(error, freedom) for error, freedom in errors)
    return Difference(value, value - half, value + half, p_value, detectable, seeds, problems, over)


def _detectable(error: float, freedom: float) -> float:
    """Return the true difference that the test finds with the probability `POWER`.

    Args:
        error: standard error of the difference.
        freedom: degrees of freedom of the t distribution.
    """
    from scipy.special import nctdtrinc, stdtrit

    critical = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
    # A true difference of k standard errors moves t to the noncentral distribution with noncentrality k.
    return float(nctdtrinc(freedom, 1 - POWER, critical)) * error
