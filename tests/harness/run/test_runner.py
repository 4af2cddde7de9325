"""One run from the command line: its record, its predictions and its adapter."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from harness.backbone.loader import load_backbone
from harness.backbone.machine import Machine
from harness.config.plan import Overrides, plan_runs
from harness.config.presets import BackboneSpec, resolve_spec
from harness.config.recipe import ChoiceRecipe
from harness.data.prompts import build_prompt, encode
from harness.errors import UserError
from harness.evaluation.model import EvaluationFailedError
from harness.evaluation.scienceqa_metrics import COLUMNS
from harness.records import PeakMemory, Record, predictions_path, read_records, record_path
from harness.run.setup import Setup
from harness.tasks.contract import DataOptions, load_task
from harness.tasks.scienceqa import ScienceQATask
from methods import get_method
from methods.checkpoint import load_adapter, load_adapter_state
from tests import command_line
from tests.command_line import Run, files, quick_run
from tests.folders import byte_tokenizer

ROOT = Path(__file__).parents[3]


def full_disk(*args: Any) -> None:
    """Stand in for what writes a file."""
    raise UserError("no space left")


class Made(NamedTuple):
    """One run: its record, the rows of its predictions, and the folder of its results."""

    record: Record
    rows: list[dict[str, Any]]
    predictions: Path
    results: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mini_set: Path, small_llm: Path, small_clip: Path) -> Made:
    results = tmp_path_factory.mktemp("made") / "results"
    assert command_line.call(*quick_run(small_llm, small_clip, mini_set, results), "--methods", "memvp").code == 0
    (record,) = read_records(results)
    predictions = predictions_path(record_path(record, results))
    return Made(record, [json.loads(line) for line in predictions.read_text().splitlines()], predictions, results)


@pytest.fixture
def complete(made: Made, tmp_path: Path) -> Path:
    """A copy of the results of that run, in the folder where `base` makes its runs."""
    return shutil.copytree(made.results, tmp_path / "results")


def test_a_record_says_what_was_trained_and_how_long_it_took(made: Made) -> None:
    record = made.record
    assert record.parameters.trainable > 0 and record.backbone.llm == "small-llm"
    assert record.epochs == pytest.approx(0.5) and record.data.split_sizes["train"] == 24
    assert record.loss.first > 0 and record.times_s.train >= record.times_s.train_step_median > 0


def test_the_accuracy_is_that_of_the_saved_predictions(made: Made) -> None:
    assert len(made.rows) == 12 and set(made.rows[0]) == {"qid", "prompt_sha256", "raw", "choice", "gold", "columns"}
    right = sum(row["choice"] == row["gold"] for row in made.rows)
    assert 0 < right < 12
    assert list(made.record.metrics) == list(COLUMNS)
    assert made.record.metrics["Avg"].n == 12
    assert made.record.metrics["Avg"].value == pytest.approx(100 * right / 12)
    assert made.record.parse_failures.count == sum(row["choice"] is None for row in made.rows)


def test_scoring_the_saved_predictions_gives_the_recorded_accuracy(made: Made, call: Run, mini_set: Path) -> None:
    scored = call(
        *("score", "scienceqa", "--format", "json"),
        *("--problems", mini_set / "problems.json", "--splits", mini_set / "pid_splits.json"),
        *("--predictions", made.predictions),
    )
    assert json.loads(scored.out)["IMG"]["value"] == made.record.metrics["IMG"].value


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


def test_a_model_that_breaks_in_the_last_step_gets_no_accuracy(call: Run, base: list[str], tmp_path: Path) -> None:
    base[base.index("--steps") + 1] = "2"  # the learning rate is 0 in step 1, so step 2 breaks the model
    done = call(*base, "--methods", "memvp", "--set", "base_lr=1e30")
    assert done.code == 1
    (record,) = read_records(tmp_path / "results")
    assert (record.status, record.steps, record.failed_step, record.metrics) == ("failed", 2, None, {})
    assert record.error.startswith("logits are NaN or infinite")


def test_a_failure_never_replaces_a_complete_run(
    complete: Path, call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (complete / name).read_bytes() for name in files(complete)}

    def fail(*args: Any) -> None:
        raise EvaluationFailedError("no")

    with monkeypatch.context() as patch:
        patch.setattr("harness.tasks.scienceqa.answer_problems", fail)
        assert call(*base, "--methods", "memvp", "--force").code == 1
    assert [r.status for r in read_records(complete)] == ["completed"]
    assert {name: (complete / name).read_bytes() for name in before} == before
    (beside,) = (complete / "unfinished").rglob("record.json")
    assert json.loads(beside.read_text())["status"] == "failed"

    done = call(*base, "--methods", "memvp", "--force")
    assert done.code == 0 and "training is finished" in done.out
    assert not (complete / "unfinished").exists()


@pytest.mark.parametrize("target", ["recording.write_predictions", "phases.save_adapter", "recording.write_atomic"])
def test_a_run_whose_files_cannot_be_written_never_replaces_a_complete_one(
    target: str, complete: Path, call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (complete / name).read_bytes() for name in files(complete)}
    with monkeypatch.context() as patch:
        patch.setattr(f"harness.run.{target}", full_disk)
        assert call(*base, "--methods", "memvp", "--force").code == 1
    assert {name: (complete / name).read_bytes() for name in before} == before


def test_a_record_that_cannot_be_written_stops_no_other_run(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("harness.run.recording.write_atomic", full_disk)
        done = call(*base, "--methods", "memvp,dehvf")
    assert done.code == 1
    for name in ("memvp", "dehvf"):
        reason = "failed: completed, but its record was not written: no space left"
        assert f"{name} seed 0: {reason}" in done.out
    again = call(*base, "--methods", "memvp,dehvf")
    assert again.code == 0 and again.out.count("training is finished") == 2


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_complete_run_that_could_not_be_published_is_published_by_the_next_command(
    error: type[BaseException], call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"

    def stop(*args: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("harness.run.recording._publish_parts", stop)
        code = call(*base, "--methods", "memvp").code
    is_error = error is OSError
    assert code == (1 if is_error else 128 + signal.SIGINT)
    assert any((results / "adapters").rglob("*.safetensors")) != is_error  # an error is undone
    again = call(*base, "--methods", "memvp")
    assert again.code == 0 and "memvp seed 0: recorded by an earlier process as" in again.out
    assert "training: " not in again.out and "evaluating: " not in again.out
    assert [record.status for record in read_records(results)] == ["completed"]
    assert len(list((results / "adapters").rglob("*.safetensors"))) == 1 and not (results / "unfinished").exists()


def test_a_disk_without_room_for_a_record_is_found_before_training(
    call: Run, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.run.workspace.Workspace.keep_reserve", full_disk)
    done = call(*base, "--methods", "memvp,dehvf")
    assert done.code == 1 and done.out.count("failed: no space left") == 2 and "training: " not in done.out


@pytest.mark.parametrize("place", ["records", "adapters", "unfinished", "samples"])
def test_a_place_that_cannot_be_written_is_found_before_training(
    place: str, call: Run, base: list[str], tmp_path: Path
) -> None:
    blocked = tmp_path / "results" / place / "scienceqa"
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    done = call(*base, "--methods", "memvp")
    assert done.code == 2 and f"{blocked}: cannot be written" in done.err


def test_a_failure_after_training_does_not_lose_the_adapter(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise UserError("Java cannot be started")

    with monkeypatch.context() as patch:
        patch.setattr("harness.tasks.scienceqa.score_scienceqa", fail)
        done = call(*base, "--methods", "memvp,dehvf")
    assert done.code == 1
    results = tmp_path / "results"
    assert {(r.label, r.status, r.error) for r in read_records(results)} == {
        ("memvp", "failed", "scoring: Java cannot be started"),
        ("dehvf", "failed", "scoring: Java cannot be started"),
    }

    again = call(*base, "--methods", "memvp,dehvf")
    assert again.code == 0 and again.out.count("training is finished") == 2 and "training: " not in again.out
    assert {r.status for r in read_records(results)} == {"completed"}
    assert [r.steps for r in read_records(results)] == [3, 3]
    assert all(r.loss.first and r.times_s.train for r in read_records(results))
    assert not (results / "unfinished").exists()


def test_what_training_measured_in_an_earlier_process_is_recorded(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory, on a GPU too, and how many processes trained, also where the process that evaluates differs."""
    with monkeypatch.context() as patch:
        patch.setattr("harness.tasks.scienceqa.score_scienceqa", full_disk)
        assert call(*base, "--methods", "memvp").code == 1
    (kept,) = (tmp_path / "results" / "unfinished").rglob("training.json")
    training = json.loads(kept.read_text())
    measured = training["measured"]
    assert measured["processes"] == 1 and measured["sharded"] is False
    assert measured["peak"]["rss"] == measured["steps"][-1]["memory_bytes"]
    assert torch.__version__.startswith(measured["maker"]["torch"]) and measured["earlier"] == []
    maker = {**measured["maker"], "commit": "a" * 40, "gpu": "another"}
    earlier = {"peak": {"rss": 2**50, "cuda_allocated": 3, "cuda_reserved": 4}, "processes": 2, "sharded": True}
    earlier["maker"] = maker
    kept.write_text(json.dumps({**training, "measured": {**measured, **earlier}}))

    again = call(*base, "--methods", "memvp")
    assert again.code == 0 and "going on with other code or on another machine" in again.out
    (record,) = read_records(tmp_path / "results")
    assert [one.model_dump() for one in record.environment.earlier] == [{**maker, "steps": 3}]
    assert "1 run went on with other code or on another machine" in again.out
    assert record.peak_memory_bytes == PeakMemory(rss=2**50, cuda_allocated=3, cuda_reserved=4)
    assert (record.environment.processes, record.environment.sharded) == (2, True)


def test_a_stop_between_the_last_step_and_the_adapter_loses_nothing(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a tracker sends what it has kept back."""
    with monkeypatch.context() as patch:
        patch.setattr("harness.run.tracker.Tracker.close", lambda self: signal.raise_signal(signal.SIGTERM))
        assert call(*base, "--methods", "memvp").code == 128 + signal.SIGTERM
    again = call(*base, "--methods", "memvp")
    assert again.code == 0 and "resuming after optimiser step 3" in again.out and "training: 1/" not in again.out
    (record,) = read_records(tmp_path / "results")
    assert (record.status, record.steps) == ("completed", 3)


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("harness.run.recording.write_predictions", "predictions"),
        ("harness.run.recording.keep_samples", "samples"),
        ("harness.run.phases.save_adapter", "adapter"),
    ],
)
def test_a_part_that_cannot_be_written_is_named_and_the_others_go_on(
    target: str, part: str, call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(target, full_disk)
        assert call(*base, "--methods", "memvp").code == 1
    (record,) = read_records(tmp_path / "results")
    assert (record.status, record.error) == ("failed", f"{part}: no space left")
    assert record.metrics["Avg"].value is not None
    assert call(*base, "--methods", "memvp").code == 0
    assert [r.status for r in read_records(tmp_path / "results")] == ["completed"]


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


def test_the_descriptions_are_part_of_what_an_oracle_is(
    spec: BackboneSpec, mini_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(mini_set, tmp_path / "data")
    monkeypatch.setattr("harness.tasks.scienceqa.ensure_mini", lambda: folder)
    oracle, memvp = plan_runs(["oracle", "memvp"], [], [0], spec, "scienceqa", Overrides())

    def specs(root: Path | None) -> list[dict[str, Any]]:
        machine = Machine(torch.device("cpu"), torch.float32)
        setup = Setup(spec, ScienceQATask(DataOptions(root)), machine, 0.0, tmp_path)
        return [setup.spec_of(plan) for plan in (oracle, memvp)]

    # What was recorded on the generated set keeps its hash.
    generated, own = specs(None), specs(folder)
    assert generated[0].keys() == generated[1].keys() == own[1].keys()
    scenes = json.loads((folder / "scenes.json").read_text())
    (folder / "scenes.json").write_text(json.dumps(dict.fromkeys(scenes, "nothing to see")))
    changed = specs(folder)
    assert changed[0] != own[0] and changed[0]["data_hash"] == own[0]["data_hash"]
    assert changed[1] == own[1] and specs(None) == generated


def test_what_was_cut_is_in_the_record(call: Run, base: list[str], mini_set: Path, tmp_path: Path) -> None:
    base[base.index("--steps") + 1] = "12"  # two epochs: an example that is cut twice counts once
    task = load_task("scienceqa", DataOptions(mini_set))
    recipe = ChoiceRecipe()
    tokenizer = byte_tokenizer()
    whole = [len(encode(tokenizer, e.prompt + e.answer)) + 2 for e in task.train_examples(recipe)]
    limit = sorted(whole)[-3]
    assert call(*base, "--methods", "memvp", "--set", f"max_length={limit}").code == 0
    (record,) = read_records(tmp_path / "results")
    prompts = [len(encode(tokenizer, build_prompt(p).scoring)) + 1 for p in task.set.samples("test")]
    assert record.truncated.train == sum(length > limit for length in whole) > 0
    assert record.truncated.eval == sum(length > limit for length in prompts)
    assert call(*base, "--methods", "memvp", "--set", f"max_length={max(whole)}").code == 0
    assert {r.truncated.train for r in read_records(tmp_path / "results")} == {record.truncated.train, 0}


def test_one_text_without_room_for_its_answer_stops_nothing(
    call: Run, base: list[str], mini_set: Path, tmp_path: Path
) -> None:
    examples = load_task("scienceqa", DataOptions(mini_set)).train_examples(ChoiceRecipe())
    prompts = sorted(len(e.prompt.encode()) + 1 for e in examples)  # a byte is a token
    arguments = [*base, "--methods", "memvp", "--set", f"max_length={prompts[-1]}", "--micro-batch", "1"]
    arguments[arguments.index("batch_size=4")] = "batch_size=2"
    arguments[arguments.index("--steps") + 1] = "12"
    done = call(*arguments)
    assert done.code == 0, done
    assert f"cuts off the whole answer of 1 of {len(examples)} training examples" in done.out
    (record,) = read_records(tmp_path / "results")
    assert record.status == "completed" and record.truncated.train > 0


def test_real_records_run_through(call: Run, base: list[str], real_data: Path, tmp_path: Path) -> None:
    base[base.index("--data-root") + 1] = str(real_data / "scienceqa150")
    base[base.index("--steps") + 1] = "1"
    assert call(*base, "--methods", "memvp", "--limit", "4").code == 0
    (record,) = read_records(tmp_path / "results")
    assert record.data.name == "scienceqa-subset" and record.metrics["Avg"].n == 4
