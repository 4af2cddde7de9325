"""Caption scores: the tokenizer, the n-gram counts, the standard errors, and programs that are not installed."""

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.tokenizer.ptbtokenizer import STANFORD_CORENLP_3_4_1_JAR

from harness.errors import UserError
from harness.evaluation import caption_metrics
from harness.evaluation.caption_metrics import bleu_from_counts, score_captions, tokenize_captions
from tests.harness.evaluation.captions import QUICK, REFERENCES


def test_tokenizer_lowers_and_drops_punctuation():
    captions = ['A "Red" cat, (big); it\'s here...', "", "two\nlines\u2028three\r", "naïve café — ok"]
    got = tokenize_captions(captions)
    # Brackets remain, as in the published scores, because the list of punctuation has them only as -LRB- and -RRB-.
    assert got[0] == "a red cat -lrb- big -rrb- it 's here"
    assert got[1] == ""
    assert got[2] == "two lines three"
    assert got[3].startswith("naïve café")
    # One token, as on the COCO server, although it has a space of another kind inside.
    assert tokenize_captions(["a 2 1/2 year old boy"]) == ["a 2\xa01/2 year old boy"]


def test_perfect_captions():
    scores, counts = score_captions(REFERENCES, {key: refs[0] for key, refs in REFERENCES.items()}, QUICK)
    assert tuple(scores) == QUICK
    assert scores["BLEU-4"].value == pytest.approx(100) and scores["ROUGE-L"].value == pytest.approx(100)
    assert counts.guess == counts.correct and counts.testlen == counts.guess[0] == counts.reflen
    assert scores["CIDEr"].n == 3 and scores["CIDEr"].stderr is not None


def test_one_image_has_no_standard_error():
    scores, _ = score_captions({"1": REFERENCES["1"]}, {"1": REFERENCES["1"][0]}, QUICK)
    for name, score in scores.items():
        if score.value is not None:
            assert (score.stderr, score.reason) == (None, "one image has no standard error"), name
    assert scores["BLEU-1"].value == pytest.approx(100) and scores["ROUGE-L"].value == pytest.approx(100)


def test_one_image_has_no_cider():
    """Its n-grams have no weight, so that a perfect caption and a wrong one would both have 0."""
    score = score_captions({"1": REFERENCES["1"]}, {"1": REFERENCES["1"][0]}, ("CIDEr",))[0]["CIDEr"]
    assert (score.value, score.n, score.reason) == (None, 1, "CIDEr needs more than one image")


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


def test_there_must_be_an_image():
    with pytest.raises(UserError, match="no images"):
        score_captions({}, {})


def test_a_missing_tokenizer_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(caption_metrics, "_package", lambda: tmp_path)
    with pytest.raises(UserError, match="reinstall pycocoevalcap"):
        tokenize_captions(["a"])


def test_a_failing_tokenizer_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(caption_metrics, "_package", lambda: tmp_path)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / STANFORD_CORENLP_3_4_1_JAR).write_bytes(b"no jar")
    with pytest.raises(UserError, match="the PTB tokenizer ended with status 1"):
        tokenize_captions(["a"])


def test_missing_meteor_is_null_with_a_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(caption_metrics, "_package", lambda: tmp_path)
    score = caption_metrics._meteor({"1": ["a"]}, {"1": ["a"]})
    assert score.value is None and "meteor-1.5.jar" in (score.reason or "")


def test_references_without_words_have_no_cider():
    references = {"1": [".", "!"], "2": ["...", "?"]}
    scores, _ = score_captions(references, {"1": "a dog", "2": "."}, QUICK)
    assert scores["CIDEr"].value is None and scores["CIDEr"].reason == "no reference has a word"
