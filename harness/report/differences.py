"""The difference between two rows of a table in one column, by the best model that their records allow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.errors import UserError
from harness.records import Record
from harness.report.answers import Answers, read_answers
from harness.stats import Difference, over_problems, over_seeds, over_seeds_and_problems

Runs = Mapping[int, Record]
"""Seed -> run of one method."""


def by_seed(runs: Sequence[Record]) -> dict[int, Record]:
    """Return runs that differ in their seed by this seed."""
    return {run.seed: run for run in runs}


def difference(ours: Runs, theirs: Runs, column: str, results_dir: Path) -> Difference | None:
    """Compare two methods in one column, over the seeds that both have.

    Where the saved predictions tell every answer, seeds and problems both vary; with a single seed, problems alone.
    Else the scores are compared over the seeds.

    Args:
        ours, theirs: the runs of the two methods on one model and task.
        column: name of the metric.
        results_dir: the results folder, for the predictions.

    Returns:
        The first minus the second; None if they have no seed in common, or a run has no value in this column.

    Raises:
        UserError: saved predictions have an error, or are not for the same problems.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    left, right = ({seed: _value(runs[seed], column) for seed in seeds} for runs in (ours, theirs))
    ours_known, theirs_known = ({s: v for s, v in side.items() if v is not None} for side in (left, right))
    if not seeds or len(ours_known) < len(seeds) or len(theirs_known) < len(seeds):
        return None
    answers = [[read_answers(runs[seed], results_dir) for seed in seeds] for runs in (ours, theirs)]
    found = [run for side in answers for run in side if run is not None and column in run.columns]
    if len(found) < 2 * len(seeds):
        return over_seeds(ours_known, theirs_known)
    _require_same_problems(found, ours[seeds[0]], theirs[seeds[0]])
    asked_N = found[0].columns[column]
    right_PSN = np.array([run.right_N[asked_N] for run in found]).reshape(2, len(seeds), -1)
    if right_PSN.shape[2] < 2:
        return over_seeds(ours_known, theirs_known)
    if len(seeds) == 1:
        return over_problems(right_PSN[0, 0], right_PSN[1, 0])
    return over_seeds_and_problems(right_PSN[0], right_PSN[1])


def _require_same_problems(found: Sequence[Answers], ours: Record, theirs: Record) -> None:
    if any(run.problems != found[0].problems for run in found):
        raise UserError(
            f"{ours.label}, {theirs.label}: the saved predictions are not for the same problems; repeat the runs with "
            "--force"
        )


def _value(run: Record, column: str) -> float | None:
    return run.metrics[column].value if column in run.metrics else None
