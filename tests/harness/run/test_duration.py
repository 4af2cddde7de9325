"""How long a run takes by records: only those tell that were made as the run will be."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from harness import processes
from harness.backbone.machine import Machine
from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import resolve_spec
from harness.records import SpeedSetting, collect_environment, write_record
from harness.run.duration import Pace, Paces
from harness.run.sharded import SETTINGS
from harness.tasks.contract import Task
from tests.record_factory import make, speed

SPEC = resolve_spec("7b", None, None)
CPU = Machine(torch.device("cpu"), torch.float32)


TASK = cast(Task, SimpleNamespace(data=lambda recipe: SimpleNamespace(name="scienceqa")))
"""As much of a task as records are chosen by."""


def planned(task: str = "scienceqa", protocol: str = "uniform", **settings: Any) -> RunPlan:
    """Return a plan of MemVP at 7B."""
    (plan,) = plan_runs(["memvp"], [], [0], SPEC, task, Overrides(settings=settings, protocol=protocol))
    return plan


def pace(results: Path, plan: RunPlan) -> Pace | None:
    """Return the pace that records tell; nothing is measured."""
    return Paces(SPEC, CPU, 1, results, TASK, loadable=False).of(plan, None, 1)


def run_record(results: Path, plan: RunPlan, **environment: Any) -> None:
    """Write the record of a run with two seconds per step and 2,000 seconds for 1,000 answers."""
    record = make(
        model="7b",
        config=plan.resolved(),
        times_s={
            "load": 1,
            "data": 1,
            "train_step_median": 2,
            "train_step_p90": 2,
            "train": 9,
            "eval": 2000,
            "scoring": 1,
        },
        environment=collect_environment(threads=1, **environment),
    )
    write_record(record, results)


def test_a_run_tells_of_runs_that_differ_in_length_and_rate_only(tmp_path: Path) -> None:
    run_record(tmp_path, planned())
    for same in ({}, {"base_lr": 0.5, "epochs": 3.0, "weight_decay": 0.0}, {"eval_split": "val"}):
        assert pace(tmp_path, planned(**same)) == Pace(2.0, 2.0, "a run record"), same
    for other in (
        {"scoring": "generate"},
        {"scoring": "likelihood"},
        {"max_new_tokens": 5},
        {"prompt_format": "QCML-A", "eval_prompt_format": "QCM-A"},
        {"eval_prompt_format": "QCML-A"},
        {"use_caption": True, "eval_use_caption": False},
        {"eval_use_caption": True},
        {"gradient_checkpointing": True},
        {"max_grad_norm": 1.0},
        {"memory_length": 5},
    ):
        assert pace(tmp_path, planned(**other)) is None, other
    assert pace(tmp_path, planned(protocol="published", eval_use_caption=True)) is None


def test_beams_take_longer(tmp_path: Path) -> None:
    run_record(tmp_path, planned("coco"))
    assert pace(tmp_path, planned("coco", base_lr=0.5)) is not None
    assert pace(tmp_path, planned("coco", beams=5)) is None


@pytest.mark.parametrize("made", [{"processes": 2}, {"processes": 2, "sharded": True}, {"deterministic": True}])
def test_a_run_tells_of_as_many_processes_and_the_same_algorithms(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_record(tmp_path, planned(), **{"processes": 1, "sharded": False, "deterministic": False, **made})
    assert pace(tmp_path, planned()) is None
    monkeypatch.setenv(processes.COUNT, str(made.get("processes", 1)))
    if made.get("sharded"):
        for name, value in {processes.FSDP: "true", **SETTINGS}.items():
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: "deterministic" in made)
    assert pace(tmp_path, planned()) == Pace(2.0, 2.0, "a run record")


def speed_record(results: Path, new_tokens: int, compiled: bool = False, **changes: Any) -> None:
    """Write times of 4 samples in training and 10 in inference: 8 seconds and 5 seconds."""
    sizes = {"text_length": 128, "labels": 4, "train_batch": 4, "eval_batch": 10, "new_tokens": new_tokens}
    record = speed("memvp", 8.0, 5.0, environment=collect_environment(threads=1), **changes)
    assert record.speed is not None
    timed = record.speed.model_copy(update={"setting": SpeedSetting(**sizes, compiled=compiled)})
    write_record(record.model_copy(update={"speed": timed}), results)


@pytest.mark.parametrize(
    ("plan", "new_tokens", "answer_s"),
    [
        (planned(), 1, 0.5),
        (planned(), 64, None),
        (planned(scoring="generate"), 1, None),
        (planned(scoring="generate"), 64, 0.5),
        (planned(scoring="likelihood"), 1, None),
        (planned("coco"), 1, None),
        (planned("coco"), 64, 0.5),
        (planned("coco", beams=2), 64, None),
    ],
)
def test_a_speed_record_tells_of_answers_of_its_length(
    plan: RunPlan, new_tokens: int, answer_s: float | None, tmp_path: Path
) -> None:
    speed_record(tmp_path, new_tokens)
    assert pace(tmp_path, plan) == Pace(64.0, answer_s, "a speed record at 128 tokens")


def test_compiled_inference_tells_nothing_of_a_run(tmp_path: Path) -> None:
    speed_record(tmp_path, 1, compiled=True)
    assert pace(tmp_path, planned(captured=True)) == Pace(64.0, None, "a speed record at 128 tokens")


def test_what_speed_does_not_time_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed_record(tmp_path, 1)
    found = pace(tmp_path, planned(captured=True))
    assert found is not None and found.source == "a speed record at 128 tokens, not compiled"
    assert pace(tmp_path, planned(gradient_checkpointing=True)) is None
    monkeypatch.setenv(processes.COUNT, "2")
    assert pace(tmp_path, planned()) is None


def test_a_speed_record_of_other_sizes_tells_nothing(tmp_path: Path) -> None:
    speed_record(tmp_path, 1, config=planned(memory_length=5).resolved())
    assert pace(tmp_path, planned()) is None
    assert pace(tmp_path, planned(memory_length=5)) is not None
