"""Statistics over seeds and over problems. Import them from here. Values are in percent unless a docstring says so."""

from harness.stats.families import holm
from harness.stats.paired import (
    CONFIDENCE,
    POWER,
    Difference,
    Over,
    over_problems,
    over_seeds,
    over_seeds_and_problems,
    untested,
)
from harness.stats.summary import binomial_stderr, mean, median_interval, next_run_error, sample_std

__all__ = [
    "CONFIDENCE",
    "POWER",
    "Difference",
    "Over",
    "binomial_stderr",
    "holm",
    "mean",
    "median_interval",
    "next_run_error",
    "over_problems",
    "over_seeds",
    "over_seeds_and_problems",
    "sample_std",
    "untested",
]
