"""What the tests of executors share."""

import pytest

NAMED = ("--device", "cpu", "--threads", "1")
"""Options without which no executor takes a run."""
EXTRAS = {"ray": "ray", "submitit": "slurm"}
"""Executor -> the extra that installs its package."""
NEEDS_RAY = pytest.mark.extra("ray", package="ray")
NEEDS_SUBMITIT = pytest.mark.extra("slurm", package="submitit")
EXECUTORS = [pytest.param("ray", marks=NEEDS_RAY), pytest.param("submitit", marks=NEEDS_SUBMITIT)]
"""Each executor, for tests that need its package."""
