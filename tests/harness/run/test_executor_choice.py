"""The executor that the options ask for, and what is refused before any run."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.records import SpeedSetting, collect_environment, write_record
from tests.command_line import Run
from tests.harness.run.executors import EXECUTORS, EXTRAS, NAMED, NEEDS_SUBMITIT
from tests.record_factory import speed


@pytest.mark.parametrize("executor", EXTRAS)
@pytest.mark.parametrize("options", [(), ("--dry-run", "--device", "cpu")])
def test_a_missing_package_is_found_first(
    executor: str,
    options: tuple[str, ...],
    call: Run,
    base: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == executor else real(module))
    done = call(*base, "--methods", "oracle", "--executor", executor, *options)
    line = f'--executor {executor}: the package is not installed; run `pip install -e ".[{EXTRAS[executor]}]"`'
    assert done.code == 2 and line in done.err + done.out and not (tmp_path / "results" / "records").exists()
    assert options or len(done.err.splitlines()) == 1


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "--device auto: other machines make the runs and may differ; give cpu or cuda"),
        ("--device cuda:1", "--device cuda:1: other machines make the runs"),
        ("--device cpu", "--executor EXECUTOR: needs the number of cores of a run; give --threads N"),
        ("--device cuda --weights random", "--weights random: a GPU draws others than this machine"),
    ],
)
def test_nothing_is_left_to_the_machine_of_a_run(
    executor: str, options: str, message: str, call: Run, base: list[str]
) -> None:
    done = call(*base, "--methods", "memvp", "--executor", executor, *options.split())
    assert done.code == 2 and message.replace("EXECUTOR", executor) in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_dry_run_names_what_the_executor_refuses(executor: str, call: Run, base: list[str], tmp_path: Path) -> None:
    command = (*base, "--methods", "oracle", "--executor", executor, "--dry-run")
    quantised = call(*command, *NAMED, "--quantize", "4bit")
    assert quantised.code == 2 and "missing: --quantize 4bit: this machine cannot hash" in quantised.out
    open_ended = call(*command)
    assert open_ended.code == 2 and f"missing: --executor {executor}: needs the number of cores" in open_ended.out
    assert "missing: --device auto: other machines make the runs and may differ; give cpu or cuda" in open_ended.out
    # Other machines may make more runs at a time than this one.
    whole = call(*command, *NAMED, "--jobs", "100")
    assert whole.code == 0 and "nothing is missing" in whole.out and "side by side" not in whole.out, whole.out
    assert not (tmp_path / "results").exists()


@NEEDS_SUBMITIT
def test_a_dry_run_names_parameters_that_submitit_refuses(call: Run, base: list[str], tmp_path: Path) -> None:
    command = (*base, "--methods", "oracle", "--executor", "submitit", *NAMED, "--dry-run")
    done = call(*command, "--submitit", "slurm_nothing=1")
    assert done.code == 2 and "missing: --submitit: Unknown argument 'nothing'" in done.out
    assert not (tmp_path / "results").exists()


@NEEDS_SUBMITIT
def test_a_dry_run_for_other_machines_needs_no_gpu_here(
    call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("harness.run.dryrun.free_memory", lambda device: pytest.fail("this machine makes no run"))
    command = ("run", "--methods", "memvp", "--model", "7b", "--device", "cuda", "--threads", "8", "--dry-run")
    there = (*command, "--executor", "submitit", "--results", tmp_path)

    def row() -> dict[str, Any]:
        found = json.loads(call(*there, "--format", "json").out)
        assert all("not on this machine" in line for line in found["missing"])
        return dict(found["runs"][0])

    least = row()
    assert least["step_s"] is least["free_memory_gib"] is None and least["micro_batch"] == 1
    assert least["memory_gib"] > 13 and least["train"]["captured"] is True
    for gpu in (None, "NVIDIA H200"):
        environment = collect_environment(gpu=gpu, threads=1)
        record = speed("memvp", 8.0, 5.0, environment=environment, backbone={"dtype": "bfloat16"})
        assert record.speed is not None
        setting = {"text_length": 128, "labels": 4, "new_tokens": 1, "train_batch": 32, "eval_batch": 10}
        timed = record.speed.model_copy(update={"setting": SpeedSetting(**setting, compiled=True)})
        write_record(record.model_copy(update={"speed": timed}), tmp_path)
    assert (row()["step_s"], row()["hours_source"]) == (8.0, "a speed record of NVIDIA H200 at 128 tokens")
    here = call(*command)
    assert here.code == 2 and "torch can use 0 GPUs here" in here.err


def test_an_unknown_executor_is_refused(call: Run, base: list[str]) -> None:
    done = call(*base, "--executor", "dask")
    assert done.code == 2 and "'dask' is not one of 'local', 'ray', 'submitit'" in done.err


@NEEDS_SUBMITIT
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("timeout_min", "--submitit timeout_min: is not KEY=VALUE"),
        ("timeout_min=long", '--submitit: Parameter "timeout_min" expected type'),
        ("slurm_nothing=1", "--submitit: Unknown argument 'nothing' for executor 'slurm'"),
    ],
)
def test_parameters_of_submitit_are_checked(parameters: str, message: str, call: Run, base: list[str]) -> None:
    done = call(*base, "--methods", "memvp", "--executor", "submitit", *NAMED, "--submitit", parameters)
    assert done.code == 2 and message in done.err and len(done.err.splitlines()) == 1


def test_parameters_of_submitit_need_submitit(call: Run, base: list[str]) -> None:
    done = call(*base, "--submitit", "timeout_min=1")
    assert done.code == 2 and "--submitit: is for --executor submitit" in done.err
