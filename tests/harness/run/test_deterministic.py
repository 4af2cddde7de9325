"""Runs with torch's deterministic algorithms."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.backbone.machine import use_deterministic_algorithms
from harness.errors import UserError
from harness.records import read_records
from tests.command_line import Run


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave torch and the environment as they were."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    yield
    torch.use_deterministic_algorithms(False)


def test_torch_is_told_and_a_choice_of_the_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:

    use_deterministic_algorithms()
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    use_deterministic_algorithms()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_checks_that_compute_are_made_so_too(
    more: tuple[str, ...], call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuBLAS reads its setting when it starts, and such a check starts it."""

    def check(quantize: str | None, device: torch.device) -> None:
        raise UserError(f"deterministic is {torch.are_deterministic_algorithms_enabled()}")

    module = "dryrun" if more else "run"
    monkeypatch.setattr(f"harness.commands.{module}.require_quantisation", check)
    done = call(*base, "--methods", "memvp", "--quantize", "4bit", "--deterministic", *more)
    assert done.code == 2 and "deterministic is True" in done.out + done.err


def test_the_record_says_so(call: Run, base: list[str], tmp_path: Path) -> None:
    done = call(*base, "--methods", "memvp", "--jobs", "1", "--deterministic")
    assert done.code == 0, done.err
    (record,) = read_records(tmp_path / "results")
    assert record.environment.deterministic is True
