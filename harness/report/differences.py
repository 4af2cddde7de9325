"""The difference between two rows of a table in one column, by the best model that their records allow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.errors import UserError
from harness.records import Record
from harness.report.answers import Answers, read_answers
from harness.stats import Difference, over_problems, over_seeds, over_seeds_and_problems, untested
from harness.tasks.facts import task_facts

Runs = Mapping[int, Record]
"""Seed -> run of one method."""


def by_seed(runs: Sequence[Record]) -> dict[int, Record]:
    """Return runs that differ in their seed by this seed."""
    return {run.seed: run for run in runs}


def difference(ours: Runs, theirs: Runs, column: str, results_dir: Path) -> Difference | None:
    """Compare two methods in one column, over the seeds that both have.

    Where the saved predictions tell the answers, seeds and problems both vary; with a single seed, problems alone. Runs
    whose predictions are missing are then left out with their seed. If fewer than two of several seeds remain, nothing
    is tested: the seeds alone would hide how much depends on the problems. Scores that are not shares of right answers
    are compared over the seeds.

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
    if task_facts(ours[seeds[0]].task).answers is None:
        return over_seeds(ours_known, theirs_known)
    pairs = [[read_answers(runs[seed], results_dir) for runs in (ours, theirs)] for seed in seeds]
    known = [[run for run in pair if run is not None and column in run.columns] for pair in pairs]
    found = [pair for pair in known if len(pair) == 2]
    if len(found) < min(2, len(seeds)):
        return untested(ours_known, theirs_known)
    first = found[0][0]
    _require_same_problems([run for pair in found for run in pair], ours[seeds[0]], theirs[seeds[0]])
    right_SPN = np.array([[run.right_N[first.columns[column]] for run in pair] for pair in found])
    if right_SPN.shape[2] < 2:
        return untested(ours_known, theirs_known)
    if len(seeds) == 1:
        return over_problems(right_SPN[0, 0], right_SPN[0, 1])
    return over_seeds_and_problems(right_SPN[:, 0], right_SPN[:, 1])


def _require_same_problems(found: Sequence[Answers], ours: Record, theirs: Record) -> None:
    if any(run.problems != found[0].problems for run in found):
        raise UserError(
            f"{ours.label}, {theirs.label}: the saved predictions are not for the same problems; repeat the runs with "
            "--force"
        )


def _value(run: Record, column: str) -> float | None:
    return run.metrics[column].value if column in run.metrics else None
