"""What the tests of executors share."""

import importlib.util

import pytest

NAMED = ("--device", "cpu", "--threads", "1")
"""Options without which no executor takes a run."""
EXTRAS = {"ray": "ray", "submitit": "slurm"}
"""Executor -> the extra that installs its package."""


def needs(executor: str) -> None:
    """Skip the test without the executor's package."""
    if importlib.util.find_spec(executor) is None:
        pytest.skip(f'{executor} is not installed; run `pip install -e ".[{EXTRAS[executor]}]"`')
