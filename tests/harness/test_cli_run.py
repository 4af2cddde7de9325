"""Runs from the command line: records, skips, failures, and what a killed run leaves."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import cli
from harness.backbone.loader import load_backbone
from harness.config.presets import resolve_spec
from harness.config.recipes import TrainRecipe
from harness.data.prompts import build_prompt
from harness.evaluation.scienceqa_metrics import COLUMNS
from harness.records import predictions_path, read_records, record_path
from harness.tasks.contract import DataOptions, load_task
from methods import get_method
from methods.checkpoint import load_adapter, load_adapter_state
from tests.command_line import Run, files

ROOT = Path(__file__).parents[2]


def test_run_records_skips_and_runs_again(call: Run, base: list[str], mini_set: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    first = call(*base, "--methods", "memvp", "--seeds", "0,1")
    assert first.code == 0
    assert "memvp seed 1: training: 3/3 loss" in first.out
    assert "| MemVP" in first.out and "n/a" in first.out  # the table: what ran, and what has not

    records = read_records(results)
    assert [(r.label, r.seed, r.status, r.steps, r.kind) for r in records] == [
        ("memvp", 0, "completed", 3, "train"),
        ("memvp", 1, "completed", 3, "train"),
    ]
    for record in records:
        assert list(record.metrics) == list(COLUMNS)
        assert record.metrics["Avg"].n == 12
        assert record.parameters.trainable > 0 and record.backbone.llm == "small-llm"
        assert record.epochs == pytest.approx(0.5) and record.data.split_sizes["train"] == 24
        assert record.loss.first > 0 and record.times_s.train >= record.times_s.train_step_median > 0
        rows = [json.loads(line) for line in predictions_path(record_path(record, results)).read_text().splitlines()]
        assert len(rows) == 12 and set(rows[0]) == {"qid", "prompt_sha256", "raw", "choice", "gold"}
        right = sum(row["choice"] == row["gold"] for row in rows)
        assert 0 < right < 12
        assert record.metrics["Avg"].value == pytest.approx(100 * right / 12)
        assert record.parse_failures.count == sum(row["choice"] is None for row in rows)
    assert records[0].loss != records[1].loss
    assert len(files(results)) == 2 * 4  # a record, its predictions and the adapter's two files

    scored = call(
        *("score", "scienceqa", "--format", "json"),
        *("--problems", mini_set / "problems.json", "--splits", mini_set / "pid_splits.json"),
        *("--predictions", predictions_path(record_path(records[0], results))),
    )
    assert json.loads(scored.out)["IMG"]["value"] == records[0].metrics["IMG"].value

    again = call(*base, "--methods", "memvp", "--seeds", "0,1,2")
    assert again.code == 0 and again.out.count("already recorded") == 2
    assert "seed 2: training" in again.out and "seed 0: training" not in again.out
    assert read_records(results)[:2] == records

    forced = call(*base, "--methods", "memvp", "--seeds", "0", "--force")
    assert forced.code == 0 and "already recorded" not in forced.out
    made_again = read_records(results)[0]
    assert made_again.created > records[0].created
    assert (made_again.metrics, made_again.loss) == (records[0].metrics, records[0].loss)  # from the same seed


def test_the_saved_adapter_can_be_loaded(call: Run, base: list[str], small_llm: Path, small_clip: Path) -> None:
    results = Path(base[base.index("--results") + 1])
    assert call(*base, "--methods", "dehvf", "--seeds", "3").code == 0
    (folder,) = (results / "adapters").rglob("seed3-*")
    saved = load_adapter(folder)
    record = read_records(results)[0]
    assert saved.method == "dehvf"
    assert saved.extra["backbone"]["weight_hash"] == record.backbone.weight_hash
    backbone = load_backbone(resolve_spec("tiny", str(small_llm), f"local-dir:{small_clip}"))
    chosen = get_method(saved.method)
    method = chosen(backbone, chosen.Config(**saved.config))
    load_adapter_state(folder, method)
    assert sum(p.numel() for p in method.parameters()) == record.parameters.trainable


def test_a_failed_run_is_recorded_and_the_others_go_on(call: Run, base: list[str], tmp_path: Path) -> None:
    done = call(*base, "--methods", "memvp,dehvf", "--set", "memvp.base_lr=1e30")
    assert done.code == 1
    dehvf, memvp = read_records(tmp_path / "results")
    assert (dehvf.label, dehvf.status) == ("dehvf", "completed")
    assert (memvp.status, memvp.failed_step, memvp.steps, memvp.metrics) == ("failed", 3, 2, {})
    assert memvp.error in ("loss is nan at step 3", "loss is inf at step 3")
    assert f"failed: memvp seed 0: {memvp.error}" in done.out
    names = files(tmp_path / "results")
    assert not [name for name in names if "memvp" in name and not name.endswith(f"{memvp.spec_hash}.json")]

    again = call(*base, "--methods", "memvp,dehvf", "--set", "memvp.base_lr=1e30")
    assert again.code == 1  # a failed run is no recorded run: it is tried again
    assert again.out.count("already recorded") == 1 and "memvp seed 0: training" in again.out


def test_a_model_that_breaks_in_the_last_step_gets_no_accuracy(call: Run, base: list[str], tmp_path: Path) -> None:
    base[base.index("--steps") + 1] = "2"  # the first step's rate is 0, so that the second breaks it
    done = call(*base, "--methods", "memvp", "--set", "base_lr=1e30")
    assert done.code == 1
    (record,) = read_records(tmp_path / "results")
    assert (record.status, record.steps, record.failed_step, record.metrics) == ("failed", 2, None, {})
    assert record.error.startswith("logits are NaN or infinite")


def test_a_failure_leaves_no_answers_of_an_earlier_run(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.evaluation.choices import EvaluationFailedError

    assert call(*base, "--methods", "memvp").code == 0

    def fail(*args: Any) -> None:
        raise EvaluationFailedError("no")

    monkeypatch.setattr("harness.tasks.scienceqa.answer_problems", fail)
    assert call(*base, "--methods", "memvp", "--force").code == 1
    assert [r.status for r in read_records(tmp_path / "results")] == ["failed"]
    assert not [name for name in files(tmp_path / "results") if name.endswith(".jsonl")]


def test_a_defect_of_one_method_is_recorded_and_the_others_go_on(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memvp = get_method("memvp")

    def break_down(*args: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nand more")

    monkeypatch.setattr(memvp, "build_sequence", break_down)
    done = call(*base, "--methods", "memvp,dehvf")
    assert done.code == 1 and "Traceback" in done.err and "in break_down" in done.err
    status = {r.label: (r.status, r.error) for r in read_records(tmp_path / "results")}
    error = "RuntimeError: DefaultCPUAllocator: can't allocate memory"
    assert status == {"dehvf": ("completed", None), "memvp": ("failed", error)}


def test_an_interrupted_run_is_recorded_and_made_later(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("harness.run.runner.train", interrupt)
        assert call(*base, "--methods", "memvp").code == 130
    (record,) = read_records(tmp_path / "results")
    assert (record.status, record.error, record.steps) == ("interrupted", "interrupted by the user", 0)
    assert call(*base, "--methods", "memvp").code == 0
    assert [r.status for r in read_records(tmp_path / "results")] == ["completed"]


def test_no_record_without_its_predictions(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*args: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("harness.run.runner.write_predictions", full_disk)
    with pytest.raises(OSError, match="no space left"):
        monkeypatch.setattr(sys, "argv", ["peft-vl-bench", *base, "--methods", "memvp"])
        cli.main()
    assert read_records(tmp_path / "results") == []


def test_a_killed_sweep_goes_on_where_it_was(call: Run, base: list[str], tmp_path: Path) -> None:
    base[base.index("--steps") + 1] = "20"
    arguments = [*base, "--methods", "memvp", "--seeds", "0,1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "seed 1: training" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.read()
    assert process.wait(timeout=60) == -signal.SIGKILL

    results = tmp_path / "results"
    (before,) = read_records(results)
    assert (before.seed, before.status) == (0, "completed")
    assert call("table", "--results", results, "--model", "small-llm-small-clip").code == 0
    done = call(*arguments)
    assert done.code == 0
    assert "seed 0: already recorded" in done.out and "seed 1: training" in done.out
    assert [(r.seed, r.status) for r in read_records(results)] == [(0, "completed"), (1, "completed")]
    assert read_records(results)[0] == before
    assert not [name for name in files(results) if Path(name).name.startswith(".") or name.endswith(".tmp")]


def test_random_weights_have_no_accuracy(call: Run, base: list[str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = call(*base, "--methods", "memvp", "--weights", "random")
    assert done.code == 0 and "memvp seed 0: completed: no accuracy" in done.out
    (record,) = read_records(results)
    assert (record.status, record.backbone.weights) == ("completed", "random")
    assert list(record.metrics) == list(COLUMNS)
    for metric in record.metrics.values():
        assert (metric.value, metric.stderr, metric.reason) == (None, None, "random weights have no accuracy")
    assert not predictions_path(record_path(record, results)).exists()
    table = call("table", "--results", results, "--format", "json", "--model", "small-llm-small-clip")
    assert all(cell["value"] is None for row in json.loads(table.out) for cell in row["metrics"].values())
    assert (
        "1 run left out: random weights" in call("table", "--results", results, "--model", "small-llm-small-clip").out
    )


def test_steps_are_the_same_for_methods_with_other_batches(call: Run, base: list[str], tmp_path: Path) -> None:
    assert call(*base, "--methods", "memvp,dehvf", "--set", "dehvf.batch_size=5", "--limit", "10").code == 0
    dehvf, memvp = read_records(tmp_path / "results")
    assert (dehvf.steps, dehvf.epochs) == (3, 1.5)
    assert (memvp.steps, memvp.epochs) == (3, 1.0)
    assert dehvf.data.limit == 10 and dehvf.metrics["Avg"].n == 10


def test_half_precision_and_clipping(call: Run, base: list[str], tmp_path: Path) -> None:
    more = ["--dtype", "bfloat16", "--set", "max_grad_norm=1.0", "--set", "gradient_checkpointing=true"]
    assert call(*base, "--methods", "lavin", *more).code == 0
    (record,) = read_records(tmp_path / "results")
    assert record.backbone.dtype == "bfloat16" and record.config["train"]["max_grad_norm"] == 1.0


def test_reference_rows_on_the_shipped_backbone(call: Run, mini_set: Path, tmp_path: Path) -> None:
    quick = ["--steps", 1, "--limit", 6, "--set", "batch_size=4"]
    done = call("run", "--methods", "blind,oracle", "--data-root", mini_set, "--results", tmp_path, *quick)
    assert done.code == 0
    blind, oracle = read_records(tmp_path)
    assert (blind.label, blind.backbone.weights) == ("dehvf-no_visual_prompts", "shipped")
    assert (oracle.kind, oracle.steps, oracle.parameters) == ("oracle", None, None)
    assert oracle.truncated.eval == 0 and oracle.missing["truncated.train"] == "nothing is trained"
    assert not list((tmp_path / "adapters").rglob("*oracle*"))
    adapter = next((tmp_path / "adapters").rglob("adapter_config.json"))
    assert str(Path(torch.__file__).parents[1]) not in adapter.read_text() and str(ROOT) not in adapter.read_text()


def test_what_was_cut_is_in_the_record(call: Run, base: list[str], mini_set: Path, tmp_path: Path) -> None:
    base[base.index("--steps") + 1] = "12"  # two epochs: what is seen twice is cut once
    task = load_task("scienceqa", DataOptions(mini_set))
    recipe = TrainRecipe()
    whole = [len((e.prompt + e.answer).encode()) + 2 for e in task.train_examples(recipe)]  # a byte is a token
    limit = sorted(whole)[-3]
    assert call(*base, "--methods", "memvp", "--set", f"max_length={limit}").code == 0
    (record,) = read_records(tmp_path / "results")
    prompts = [len(build_prompt(p).scoring.encode()) + 1 for p in task.set.samples("test")]
    assert record.truncated.train == sum(length > limit for length in whole) > 0
    assert record.truncated.eval == sum(length > limit for length in prompts)
    assert call(*base, "--methods", "memvp", "--set", f"max_length={max(whole)}").code == 0
    assert {r.truncated.train for r in read_records(tmp_path / "results")} == {record.truncated.train, 0}


def test_real_records_run_through(call: Run, base: list[str], real_data: Path, tmp_path: Path) -> None:
    base[base.index("--data-root") + 1] = str(real_data / "scienceqa150")
    base[base.index("--steps") + 1] = "1"
    assert call(*base, "--methods", "memvp", "--limit", "4").code == 0
    (record,) = read_records(tmp_path / "results")
    assert record.data.name == "scienceqa-subset" and record.metrics["Avg"].n == 4
