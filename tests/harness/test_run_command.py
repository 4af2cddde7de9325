"""Which runs `run` makes on a GPU, and what it says at its end."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.backbone.machine import Machine
from harness.commands.run import ending
from harness.commands.run_options import RunOptions, plans_of
from harness.config.presets import PRESETS
from harness.errors import UserError
from harness.records import write_record
from tests.command_line import Run
from tests.record_factory import make

CPU = torch.device("cpu")


def _ending(results: Path, *records: Any) -> str:
    for record in records:
        write_record(record, results)
    return "\n".join(ending(results, records))


def test_two_methods_with_a_seed_in_common_are_compared_by_the_next_command(call: Run, tmp_path: Path) -> None:
    results = tmp_path / "my results"
    text = _ending(results, *(make(method, seed) for method in ("memvp", "dehvf") for seed in (0, 1)))
    assert f"curves: {results}/records/scienceqa/tiny\n" in text
    *_, command = text.splitlines()
    assert command.startswith("Next: python -m harness compare memvp dehvf --model tiny --task scienceqa --results ")
    assert call(*shlex.split(command)[4:]).code == 0


@pytest.mark.parametrize("changes", [{"data": {"limit": 5}}, {"backbone": {"weights": "random"}, "metrics": {}}])
def test_what_enters_no_table_is_not_compared(changes: dict[str, Any], tmp_path: Path) -> None:
    text = _ending(tmp_path, make("memvp", **changes), make("dehvf", **changes))
    assert "compare" not in text and f"Next: python -m harness report --results {tmp_path}" in text


def test_only_folders_that_exist_are_named(tmp_path: Path) -> None:
    assert "Adapters" not in _ending(tmp_path, make("memvp"))
    (tmp_path / "adapters/scienceqa/tiny").mkdir(parents=True)
    assert f"Adapters: {tmp_path}/adapters/scienceqa/tiny" in _ending(tmp_path, make("memvp"))
    assert "the same command" in _ending(tmp_path, make("memvp", status="failed"))


@pytest.mark.parametrize(
    ("settings", "captured"),
    [
        ({}, [True, True]),
        ({"gradient_checkpointing": True}, [False, False]),
        ({"memvp.gradient_checkpointing": True}, [False, True]),
        ({"gradient_checkpointing": True, "memvp.gradient_checkpointing": False}, [True, False]),
        ({"captured": False}, [False, False]),
        ({"memvp.captured": False}, [False, True]),
    ],
)
def test_on_a_gpu_every_step_is_captured_that_a_setting_does_not_exclude(
    settings: dict[str, Any], captured: list[bool]
) -> None:
    options = RunOptions(methods=("memvp", "dehvf"), settings=settings)
    machine = Machine(torch.device("cuda"), torch.bfloat16)
    plans = plans_of(options, PRESETS["tiny"], machine)
    assert [plan.recipe.captured for plan in plans] == captured
    assert not any(plan.recipe.captured for plan in plans_of(options, PRESETS["tiny"], Machine(CPU, torch.float32)))


def test_a_gpu_refuses_only_settings_that_the_user_gave() -> None:
    settings = {"captured": True, "memvp.gradient_checkpointing": True}
    with pytest.raises(UserError, match="captured excludes gradient_checkpointing"):
        plans_of(RunOptions(methods=("memvp",), settings=settings), PRESETS["tiny"], Machine(CPU, torch.float32))
