"""ScienceQA as a task: its examples, its evaluation split and its oracle. Whole runs are in run/test_runner.py."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.config.recipe import ChoiceRecipe
from harness.data.images import ImagePreprocessor
from harness.errors import UserError
from harness.tasks.contract import DataOptions, load_task
from harness.tasks.scienceqa import ScienceQATask
from methods.tuned import TunedModel
from tests.backbones import tiny_backbone, tuned_model
from tests.folders import byte_tokenizer


@pytest.fixture
def task(mini_set: Path) -> ScienceQATask:
    task = load_task("scienceqa", DataOptions(mini_set))
    assert isinstance(task, ScienceQATask)
    return task


@pytest.fixture(scope="module")
def model() -> TunedModel:
    """A random model that reads bytes."""
    return tuned_model("memvp", replace(tiny_backbone(vocab_size=300), tokenizer=byte_tokenizer()))


def test_every_training_problem_is_an_example_with_its_image(task: ScienceQATask) -> None:
    examples = task.train_examples(ChoiceRecipe())
    problems = task.set.samples("train")
    assert [(example.id, example.image) for example in examples] == [(p.qid, p.image) for p in problems]
    assert all(example.answer for example in examples)


def test_the_data_section_has_the_prompt_format(task: ScienceQATask) -> None:
    data = task.data(ChoiceRecipe(prompt_format="QCM-A"))
    assert data.prompt_format == "QCM-A"
    assert data.split_sizes["test"] == task.evaluation_size(ChoiceRecipe())


def test_an_evaluation_has_a_row_per_problem_and_the_nine_columns(task: ScienceQATask, model: TunedModel) -> None:
    done: list[int] = []
    found = task.evaluate(model, ChoiceRecipe(), ImagePreprocessor(32), done.append)
    assert [row["qid"] for row in found.rows] == [p.qid for p in task.set.samples("test")]
    assert done[-1] == found.metrics["Avg"].n == len(found.rows)
    assert found.failures is not None and found.failures.n == len(found.rows)
    assert found.shown == ()


def test_the_oracle_gets_words_and_is_scored_in_the_same_columns(task: ScienceQATask, model: TunedModel) -> None:
    seen = [task.evaluate(model, ChoiceRecipe(), ImagePreprocessor(32), lambda done: None)]
    seen.append(task.evaluate_oracle(model, ChoiceRecipe(), ImagePreprocessor(32), lambda done: None))
    plain, oracle = ({row["qid"]: row["prompt_sha256"] for row in found.rows} for found in seen)
    changed = {qid for qid in plain if plain[qid] != oracle[qid]}
    assert changed == {p.qid for p in task.set.samples("test") if p.image}
    assert seen[0].metrics["IMG"].n == seen[1].metrics["IMG"].n == len(changed)


def test_every_row_names_the_columns_that_its_problem_counts_in(task: ScienceQATask, model: TunedModel) -> None:
    for evaluate in (task.evaluate, task.evaluate_oracle):
        found = evaluate(model, ChoiceRecipe(), ImagePreprocessor(32), lambda done: None)
        for column, metric in found.metrics.items():
            right = [row["choice"] == row["gold"] for row in found.rows if column in row["columns"]]
            assert len(right) == metric.n
            assert metric.value is None or metric.value == pytest.approx(100 * sum(right) / len(right))


def test_the_oracle_needs_a_scene_for_every_image(mini_set: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(mini_set, tmp_path / "mini")
    scenes = json.loads((folder / "scenes.json").read_text())
    task = load_task("scienceqa", DataOptions(folder))
    task.require_oracle(ChoiceRecipe())
    assert isinstance(task, ScienceQATask)
    last = [p.qid for p in task.set.samples("test") if p.image][-1]
    del scenes[last]
    (folder / "scenes.json").write_text(json.dumps(scenes))
    with pytest.raises(UserError, match=rf"scenes\.json: problem {last}: its image has no scene in words"):
        task.require_oracle(ChoiceRecipe())


def test_captions_need_a_file(task: ScienceQATask) -> None:
    task.has_captions = False
    with pytest.raises(UserError, match=r"--set use_caption: .* has no captions\.json"):
        task.train_examples(ChoiceRecipe(use_caption=True))


def with_captions(mini_set: Path, folder: Path, rename: str) -> ScienceQATask:
    """Return the task on a copy of the data whose captions have other ids: `rename` is put before each."""
    shutil.copytree(mini_set, folder)
    captions = json.loads((folder / "captions.json").read_text())["captions"]
    renamed = {f"{rename}{qid}": text for qid, text in captions.items()}
    (folder / "captions.json").write_text(json.dumps({"captions": renamed}))
    return ScienceQATask(DataOptions(folder))


def test_captions_of_other_problems_are_refused(mini_set: Path, tmp_path: Path) -> None:
    """The authors' captions have the ids of the authors' problems, which a downloaded copy does not have."""
    strange = with_captions(mini_set, tmp_path / "strange", "hf-test-")
    first = next(p.qid for p in strange.set.samples("test") if p.image)
    recipe = ChoiceRecipe(protocol="published", eval_use_caption=True)
    with pytest.raises(UserError, match=rf"--protocol published: .*captions\.json: none of the \d+ .*'{first}' first"):
        strange.require_answerable(recipe, byte_tokenizer())
    with pytest.raises(UserError, match=r"--set use_caption: .* in split 'train' has a caption"):
        strange.train_examples(ChoiceRecipe(use_caption=True))
    strange.require_answerable(ChoiceRecipe(), byte_tokenizer())
    with_captions(mini_set, tmp_path / "same", "").require_answerable(recipe, byte_tokenizer())


def test_validation_needs_a_validation_split(mini_set: Path, tmp_path: Path, task: ScienceQATask) -> None:
    task.require_validation(ChoiceRecipe())
    folder = shutil.copytree(mini_set, tmp_path / "mini")
    splits = json.loads((folder / "pid_splits.json").read_text())
    (folder / "pid_splits.json").write_text(json.dumps({**splits, "val": []}))
    with pytest.raises(UserError, match=r"--eval-every: .*split 'val' has no usable problem; add one, or leave it out"):
        ScienceQATask(DataOptions(folder)).require_validation(ChoiceRecipe())
