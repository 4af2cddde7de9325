"""Scoring saved answers: several forms, one result; broken files are named."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.commands.score import scores_text
from harness.errors import UserError
from harness.evaluation.score_scienceqa import score_scienceqa_files


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A problems file (metadata complete, no images on disk), its splits and a place for predictions."""
    common = {"choices": ["a", "b"], "hint": "", "subject": "natural science", "grade": "grade3", "split": "test"}
    problems = {
        "1": {**common, "question": "One?", "answer": 0, "image": "image.png"},
        "2": {**common, "question": "Two?", "answer": 1, "image": None},
        "3": {**common, "question": "Three?", "answer": 1, "image": None, "hint": "h"},
        "9": {**common, "question": "Nine?", "answer": 1, "image": None, "split": "train"},
    }
    splits = {"train": ["9"], "val": [], "test": ["1", "2", "3"]}
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    (tmp_path / "pid_splits.json").write_text(json.dumps(splits))
    return {name: tmp_path / name for name in ("problems.json", "pid_splits.json", "predictions.json")}


def score(files: dict[str, Path], predictions: Any) -> dict[str, Any]:
    text = predictions if isinstance(predictions, str) else json.dumps(predictions)
    files["predictions.json"].write_text(text)
    return score_scienceqa_files(*files.values())


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


FORMS = {
    "ours": lines(
        {"qid": "1", "prompt_hash": "x", "raw": "A", "choice": 0, "gold": 0},
        {"qid": "2", "prompt_hash": "y", "raw": "A", "choice": 0, "gold": 1},
        {"qid": "3", "prompt_hash": "z", "raw": "?", "choice": None, "gold": 1},
    ),
    "llava": lines(
        {"question_id": "1", "prompt": "Q", "text": "Because x.\nThe answer is A.", "answer_id": "i", "model_id": "m"},
        {"question_id": 2, "text": "A"},
        {"question_id": "3", "text": "The answer is Austria.", "metadata": {}},
    ),
    "ours, ids as numbers": lines(*({"qid": qid, "choice": choice} for qid, choice in ((1, 0), (2, 0), (3, None)))),
    "ours as an array": [{"qid": "1", "choice": 0}, {"qid": 2, "choice": 0}, {"qid": "3", "choice": 2}],
    "llava as an array": [
        {"question_id": 1, "text": "The answer is A."},
        {"question_id": "2", "text": "A", "metadata": {}},
        {"question_id": 3, "text": "none of them"},
    ],
    "llava's ids, indices": lines(*({"question_id": qid, "choice": 0 if qid < 3 else None} for qid in (1, 2, 3))),
    "indices": {"1": 0, "2": 0, "3": -1},
    "results": {"acc": 1.0, "results": {"1": 0, "2": 0, "3": None}},
    "outputs": {"outputs": {"1": "The answer is A. BECAUSE: x", "2": "The answer is A.", "3": "no idea"}},
    "both": {"outputs": {"1": "", "2": "", "3": ""}, "results": {"1": 0, "2": 0, "3": 7}},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(files, form):
    scores = score(files, FORMS[form])
    assert list(scores) == ["NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "Avg"]
    assert scores["Avg"]["value"] == pytest.approx(100 / 3)
    assert scores["Avg"]["n"] == 3 and scores["Avg"]["failures"] == 1
    assert (scores["IMG"]["value"], scores["TXT"]["value"], scores["NO"]["value"]) == (100, 0, 0)
    assert scores["SOC"]["value"] is None and scores["SOC"]["missing"] == 0


def test_the_table_says_how_many_answers_could_not_be_read(files):
    line = "Answers that could not be read: 1 of 3. They count as wrong."
    assert scores_text(score(files, FORMS["llava"]), "markdown").endswith(line)
    readable = {"1": 0, "2": 0, "3": 0}
    assert "could not be read" not in scores_text(score(files, readable), "markdown")


def test_line_breaks_of_unicode_are_text(files):
    given = [{"qid": qid, "raw": "\u2028\x85\x0b", "choice": 0} for qid in "123"]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given)
    assert score(files, text)["Avg"]["n"] == 3


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["answers", "answers.txt", "answers.json", "answers.jsonl"])
@pytest.mark.parametrize("form", ["ours", "llava", "llava as an array", "indices", "outputs"])
def test_the_name_of_the_file_does_not_matter(files, form, name, indent):
    renamed = {**files, "predictions.json": files["predictions.json"].with_name(name)}
    given = FORMS[form] if isinstance(FORMS[form], str) else json.dumps(FORMS[form], indent=indent)
    assert score(renamed, given)["Avg"]["failures"] == 1


def test_one_line_of_llava(files):
    with pytest.raises(UserError, match="2 problems without a prediction: 2, 3"):
        score(files, lines({"question_id": "1", "text": "A"}))


def test_one_line_of_our_form(files):
    with pytest.raises(UserError, match="2 problems without a prediction: 2, 3"):
        score(files, lines({"qid": "1", "choice": 0}))


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({"1": 0, "2": 0}, "1 problems without a prediction: 3"),
        ({"1": 0, "2": 0, "3": 0, "9": 1}, "unknown problems: 9"),
        ({"outputs": {"1": "", "2": "", "3": "", "x": ""}}, "unknown problems: x"),
        ('{"1": 0, "2": 0, "2": 1, "3": 0}', "given twice: 2"),
        ('{"results": {"1": 0, "2": 0, "3": 0, "1": 0}}', "given twice: 1"),
        ('{"qid": "1", "qid": "2", "choice": 0}\n{"qid": "2", "choice": 0}\n', "line 1: key given twice: qid"),
        (lines(*({"qid": q, "choice": 0} for q in "12312")), "two predictions: 1, 2"),
        (lines({"qid": "1", "choice": 0, "gold": 1}), "problem 1: its gold answer"),
        (lines({"qid": "1", "raw": "A"}), "expected 'qid' and 'choice'"),
        (lines(*({"qid": q, "raw": "A"} for q in "12")), "line 1: expected 'qid' and 'choice'"),
        (lines(*({"question_id": "1", "text": text} for text in ("A", None))), "line 2: the 'text' is not text"),
        (lines({"question_id": True, "text": "A"}), "the 'question_id' is neither text nor a whole number"),
        (lines({"qid": 1.0, "choice": 0}), "the 'qid' is neither text nor a whole number"),
        ([{"qid": "1", "choice": 0}, {"qid": 2, "question_id": 2, "choice": 0}], "entry 2: has both 'qid' and 'quest"),
        ([{"qid": "1", "choice": 0, "text": "B"}], "entry 1: has both 'choice' and 'text'"),
        ([0, 0, 0], "entry 1: expected 'qid' and 'choice'"),
        ([{"1": 0}, {"2": 0}], "entry 1: expected 'qid' and 'choice'"),
        ([{"qid": "1", "choice": 0}, {"qid": 1, "choice": 0}], "two predictions: 1"),
        (lines(*({"question_id": q, "text": "A"} for q in ("1", 1, "2", "3"))), "two predictions: 1"),
        ({"1": "A", "2": 0, "3": 0}, "problem 1: 'A'"),
        ({"1": 0.0, "2": 0, "3": 0}, "problem 1"),
        ({"1": True, "2": 0, "3": 0}, "problem 1"),
        ({"outputs": {"1": 3}}, "problem 1"),
        ({}, "expected a non-empty object"),
        ([], "has no predictions"),
        ("3", "expected a JSON object or array"),
        ("", "not valid JSON"),
        pytest.param("[" + "[]," * 5_000_000 + "1]", "has 5,000,001 arrays, objects and lines", id="very many values"),
    ],
)
def test_broken_predictions_are_named(files, predictions, message):
    with pytest.raises(UserError, match=message) as caught:
        score(files, predictions)
    assert "predictions.json" in str(caught.value)


def test_published_gpt3_answers(real_data: Path):
    scores = score_scienceqa_files(
        real_data / "scienceqa_published" / "test_problems_partial.json",
        real_data / "pid_splits_official.json",
        real_data / "scienceqa_published" / "gpt3_predictions.json",
    )
    published = {"TXT": 74.68, "IMG": 67.43, "NO": 79.93, "Avg": 75.17}
    for column, want in published.items():
        assert round(scores[column]["value"], 2) == want
    for column, missing in {"NAT": 2030, "SOC": 2030, "LAN": 2030, "G1-6": 3880, "G7-12": 3880}.items():
        assert (scores[column]["value"], scores[column]["missing"]) == (None, missing)
