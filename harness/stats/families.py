"""Several tests together: how large the p-values are when chance has had several tries."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that are corrected for their number by Holm's method.

    If those below 5 % are called significant, the probability that any true null hypothesis is among them is at most
    5 %, however the tests depend on each other.

    Args:
        p_values: one p-value per test.

    Returns:
        The corrected p-values, in the same order: each is at least as large as before and at most 1.
    """
    p_K = np.asarray(p_values, dtype=np.float64)
    order_K = np.argsort(p_K)
    # The smallest has K rivals, the next one K - 1, and so on. None may fall below one that was smaller before.
    raised_K = np.maximum.accumulate(p_K[order_K] * np.arange(len(p_K), 0, -1))
    corrected_K = np.empty_like(p_K)
    corrected_K[order_K] = np.minimum(raised_K, 1.0)
    return [float(p) for p in corrected_K]
