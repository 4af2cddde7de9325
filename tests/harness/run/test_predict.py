"""Answers from saved adapters equal those of the run; what cannot be answered gives a one-line error."""

import json
import re
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.data.mini.captions import build_captions
from harness.errors import UserError
from harness.records import predictions_path, read_records, record_path
from harness.run.predict import LoadedAdapter, load_adapter
from methods.checkpoint import CONFIG_FILE
from tests import command_line
from tests.command_line import Run, quick_run
from tests.folders import byte_tokenizer


class Trained:
    """A run's adapter, the predictions of its evaluation and its data."""

    def __init__(self, results: Path, data: Path) -> None:
        self.data = data
        self.folder = next((results / "adapters").rglob(CONFIG_FILE)).parent
        (record,) = read_records(results)
        lines = predictions_path(record_path(record, results)).read_text().splitlines()
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]


def train(results: Path, data: Path, small_llm: Path, small_clip: Path, *more: str) -> Trained:
    shorter = ["--methods", "memvp", "--steps", "2", "--limit", "6", "--device", "cpu"]
    done = command_line.call(*quick_run(small_llm, small_clip, data, results), *shorter, *more)
    assert done.code == 0, done.err
    return Trained(results, data)


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory, mini_set: Path, small_llm: Path, small_clip: Path) -> Trained:
    return train(tmp_path_factory.mktemp("answers"), mini_set, small_llm, small_clip)


@pytest.fixture(scope="module")
def captioning(tmp_path_factory: pytest.TempPathFactory, small_llm: Path, small_clip: Path) -> Trained:
    data = tmp_path_factory.mktemp("captions")
    build_captions(data, sizes=(4, 1, 2))
    more = ["--task", "coco", "--set", "max_new_tokens=5"]
    return train(tmp_path_factory.mktemp("captioned"), data, small_llm, small_clip, *more)


@pytest.fixture(scope="module")
def loaded(answering: Trained) -> LoadedAdapter:
    return load_adapter(answering.folder)


def test_answers_are_those_of_the_run(answering: Trained, loaded: LoadedAdapter) -> None:
    problems = json.loads((answering.data / "problems.json").read_text())
    assert {row["qid"] for row in answering.rows} <= problems.keys()
    for row in answering.rows:
        problem = problems[row["qid"]]
        image = answering.data / "images" / "test" / row["qid"] / "image.png" if problem["image"] else None
        found = loaded.answer(problem["question"], image, problem["choices"], problem["hint"])
        assert (found.choice, found.raw) == (row["choice"], row["raw"])
        assert found.text == ("" if row["choice"] is None else problem["choices"][row["choice"]])


def test_captions_are_those_of_the_run(captioning: Trained) -> None:
    adapter = load_adapter(captioning.folder)
    for row in captioning.rows:
        image = captioning.data / "val2014" / f"{int(row['image_id']):012d}.png"
        assert adapter.answer(image=image).text == row["caption"]


def test_a_question_without_options_is_answered_in_words(loaded: LoadedAdapter) -> None:
    found = loaded.answer("which colour is it?")
    assert found.choice is None and found.text == found.raw


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "--question, --image"),
        ({"choices": ["a", "b"]}, "--question"),
        ({"question": "?", "choices": ["a"]}, "--choices: give 2 to 26"),
        ({"question": "?", "choices": ["a", " "]}, "--choices: give 2 to 26"),
        ({"question": "?", "image": "nowhere.png"}, "nowhere.png"),
        ({"question": "x" * 3000}, "longer than the"),
        ({"image": "nowhere.png", "hint": "a hint"}, "--hint: is the context of a question"),
    ],
)
def test_what_cannot_be_answered(loaded: LoadedAdapter, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded.answer(**arguments)


def test_letters_that_are_no_tokens_are_not_scored(captioning: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on captions does not check them."""
    adapter = load_adapter(captioning.folder)
    foreign = replace(adapter.model.backbone, tokenizer=byte_tokenizer("B"))
    monkeypatch.setattr(adapter.model, "backbone", foreign)
    with pytest.raises(UserError, match=r"--choices: A is not one token after `The answer is`; leave them out"):
        adapter.answer("which?", choices=["red", "blue"])


def _change(folder: Path, copy: Path, **changes: Any) -> Path:
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / CONFIG_FILE).read_text())
    for path, value in changes.items():
        *outer, last = path.split("__")
        inner = config
        for key in outer:
            inner = inner[key]
        inner[last] = value
    (copy / CONFIG_FILE).write_text(json.dumps(config))
    return copy


def test_what_cannot_be_read_is_not_guessed(answering: Trained, tmp_path: Path) -> None:
    """The published sampling counts a random choice in the evaluation of a run. It is no answer of the model."""
    settings = {"protocol": "published", "scoring": "generate", "max_new_tokens": 3, "sampling_seed": 0}
    changes = {f"extra__train__{name}": value for name, value in settings.items()}
    found = load_adapter(_change(answering.folder, tmp_path / "copy", **changes)).answer("which?", choices=["a", "b"])
    assert (found.text, found.choice) == ("", None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra__backbone__weight_hash": "0" * 64}, "other weights"),
        ({"extra__backbone__llm": None}, "no pretrained weights"),
        ({"extra__backbone__dtype": "float64"}, "backbone.dtype"),
        ({"extra__train__epochs": "many"}, "epochs"),
        ({"method": "none"}, r"adapter_config\.json: method none: unknown"),
        ({"extra": {}}, "backbone"),
    ],
)
def test_adapters_that_do_not_fit(answering: Trained, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_adapter(_change(answering.folder, tmp_path / "copy", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config__memory_length": 3_000_000}, "memory_length.*is beyond 1000000"),
        ({"config__memory_length": 10**18}, "memory_length.*is beyond 1000000"),
        ({"config__memory_length": int("9" * 400)}, "memory_length"),
        ({"config__memory_length": "900000"}, r"memory.prompts.keys: has shape .*need \(900000, 32\)"),
        ({"config__memory_length": 900_000}, r"memory.prompts.keys: has shape .*need \(900000, 32\)"),
        ({"config__projector_dim": 10**6}, "has shape"),
        ({"config__adapter_dim": 10**6}, "has shape"),
        ({"config__memory_scale": 1e300}, "memory_scale.*is beyond"),
        ({"config__memory_scale": int("9" * 400)}, "memory_scale"),
        ({"config__memory_scale": float("inf")}, "Infinity is no JSON value"),
        ({"extra__train__base_lr": float("nan")}, "NaN is no JSON value"),
    ],
)
def test_absurd_adapters_are_refused_before_anything_is_allocated(
    answering: Trained, tmp_path: Path, call: Run, changes: dict[str, Any], message: str
) -> None:
    folder = _change(answering.folder, tmp_path / "copy", **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = call("predict", "--adapter", folder, "--question", "which?")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert re.search(message, done.err) and str(folder) in done.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_an_adapter_whose_language_model_has_code_of_its_own(
    answering: Trained, small_llm: Path, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *words: "y")
    llm = Path(shutil.copytree(small_llm, tmp_path / "llm"))
    (llm / "mine.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\nclass Mine:\n    pass\n")
    (llm / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}))
    folder = _change(answering.folder, tmp_path / "copy", extra__backbone__llm=str(llm))
    done = call("predict", "--adapter", folder, "--question", "which?")
    assert done.code == 2 and f"{llm}: has no usable config.json (it needs code of its own" in done.err
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"adapter_config\.json: is not valid JSON"),
        ("[]", r"adapter_config\.json: Input should be"),
        ('{"method": "memvp", "config": {}}', r"adapter_config\.json: field 'extra': Field required"),
        (
            '{"method": "memvp", "config": {}, "extra": {}, "code": "x"}',
            r"adapter_config\.json: field 'code': Extra inputs are not permitted",
        ),
        (
            '{"method": 3, "config": {}, "extra": {}}',
            r"adapter_config\.json: field 'method': Input should be a valid string",
        ),
    ],
)
def test_a_damaged_config_is_one_line_that_names_file_and_field(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_adapter(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_an_adapter_whose_method_cannot_be_imported(answering: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("no such")

    monkeypatch.setattr("harness.config.lookup.get_method", broken)
    with pytest.raises(UserError, match=r"method \w+: .*: no such; repair its package"):
        load_adapter(answering.folder)


def test_there_must_be_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="saved adapter"):
        load_adapter(tmp_path)


def test_options_are_given_in_one_text_or_one_by_one(answering: Trained, loaded: LoadedAdapter, call: Run) -> None:
    start = ["predict", "--adapter", str(answering.folder), "--question", "which is it?"]
    expected = loaded.answer("which is it?", choices=["red", "blue", "pink"])
    for options in (["--choices", "red, blue,pink"], ["--choices", "red", "--choices", "blue", "--choices", "pink"]):
        done = call(*start, *options, "--format", "json")
        assert json.loads(done.out) == {"text": expected.text, "choice": expected.choice, "raw": expected.raw}


def test_one_option_is_no_choice_on_the_command_line(answering: Trained, call: Run) -> None:
    done = call("predict", "--adapter", answering.folder, "--question", "which is it?", "--choices", "red")
    assert done.code == 2 and "--choices" in done.err
