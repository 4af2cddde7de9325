"""ScienceQA's numbers: from a model's words to a choice, from choices to the nine columns of the benchmark.

Columns (Lu et al. 2022): NAT, SOC, LAN by subject; TXT has a hint, IMG has an image, NO has neither (a problem can
be in TXT and IMG at once); G1-6 and G7-12 by grade; Avg all. An answer that cannot be read counts as wrong, never
as a random choice.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.data.problem import Problem
from harness.errors import UserError
from harness.stats import binomial_stderr

COLUMNS = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "Avg")
_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
_NEEDS = {"NAT": "subject", "SOC": "subject", "LAN": "subject", "G1-6": "grade", "G7-12": "grade"}
_LETTER = re.compile(r"[A-Z]")
_SENTENCE = re.compile(r"The answer is ([A-Z]).")
_LISTED = 50


@dataclass(frozen=True, slots=True)
class Score:
    """One column.

    Attributes:
        value: accuracy in percent; None with a `reason`.
        n: problems known to belong to the column.
        stderr: binomial standard error of `value` in percent, sqrt(p (1 - p) / n); None with `value`.
        missing: problems whose metadata does not say whether they belong to the column.
        failures: problems of the column whose answer could not be read (they count as wrong).
        reason: why `value` is None.
    """

    value: float | None
    n: int
    stderr: float | None
    missing: int = 0
    failures: int = 0
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain data for JSON."""
        return asdict(self)


def parse_choice(text: str, num_choices: int) -> int | None:
    """The choice in the token(s) decoded after `The answer is`: the first capital letter A-Z.

    Returns:
        its index, or None when there is no capital letter or no such choice.
    """
    return _index(_LETTER.search(text), num_choices, 0)


def parse_sentence(text: str, num_choices: int) -> int | None:
    """The choice in a whole answer, by the reference's pattern `The answer is ([A-Z]).`, which must occur once.

    Returns:
        its index, or None.
    """
    found = list(_SENTENCE.finditer(text))
    return _index(found[0], num_choices, 1) if len(found) == 1 else None


def _index(match: re.Match[str] | None, num_choices: int, group: int) -> int | None:
    if match is None:
        return None
    index = ord(match[group]) - ord("A")
    return index if index < num_choices else None


def columns_of(problem: Problem) -> tuple[str, ...]:
    """The columns a problem counts in, `Avg` included."""
    columns = [_SUBJECTS[problem.subject]] if problem.subject is not None else []
    columns += ["TXT"] * bool(problem.hint) + ["IMG"] * (problem.image is not None)
    columns += ["NO"] * (not problem.hint and problem.image is None)
    if problem.grade is not None:
        columns.append("G1-6" if int(problem.grade.removeprefix("grade")) <= 6 else "G7-12")
    return (*columns, "Avg")


def score_scienceqa(problems: Iterable[Problem], predictions: Mapping[str, int | None]) -> dict[str, Score]:
    """Accuracy in the nine columns.

    Args:
        problems: the problems of the split, each once.
        predictions: qid -> index of the choice, or None for an answer that could not be read; an index that is no
            choice of the problem counts as such too.

    Returns:
        column -> Score; a column whose metadata some problems lack is null and says how many.

    Raises:
        UserError: a problem is given twice, has no prediction, or a prediction is for no problem; lists them.
    """
    problems = list(problems)
    _check_ids([problem.qid for problem in problems], predictions)
    tallies = {column: [0, 0, 0] for column in COLUMNS}
    for problem in problems:
        choice = predictions[problem.qid]
        readable = choice is not None and 0 <= choice < len(problem.choices)
        for column in columns_of(problem):
            for slot, hit in enumerate((True, choice == problem.answer, not readable)):
                tallies[column][slot] += hit
    lacking = {
        "subject": sum(problem.subject is None for problem in problems),
        "grade": sum(problem.grade is None for problem in problems),
    }
    return {column: _score(column, tallies[column], lacking) for column in COLUMNS}


def _score(column: str, tally: Sequence[int], lacking: Mapping[str, int]) -> Score:
    n, correct, failures = tally
    need = _NEEDS.get(column)
    missing = lacking[need] if need else 0
    if missing:
        return Score(None, n, None, missing, failures, f"{missing} problems have no {need}")
    if n == 0:
        return Score(None, 0, None, reason="no problem in this column")
    value = 100 * correct / n
    return Score(value, n, binomial_stderr(value, n), 0, failures)


def failure_rate(problems: Sequence[Problem], predictions: Mapping[str, int | None]) -> float | None:
    """Percent of problems whose answer could not be read; None without problems."""
    if not problems:
        return None
    failures = score_scienceqa(problems, predictions)["Avg"].failures
    return 100 * failures / len(problems)


def listing(qids: Iterable[str]) -> str:
    """Ids for an error message, the first fifty by name."""
    names = list(qids)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _check_ids(qids: Sequence[str], predictions: Mapping[str, int | None]) -> None:
    known = set(qids)
    complaints = []
    if twice := [qid for qid, times in Counter(qids).items() if times > 1]:
        complaints.append(f"problems given twice: {listing(twice)}")
    if missing := [qid for qid in qids if qid not in predictions]:
        complaints.append(f"{len(missing)} problems without a prediction: {listing(missing)}")
    if unknown := [qid for qid in predictions if qid not in known]:
        complaints.append(f"{len(unknown)} predictions for unknown problems: {listing(unknown)}")
    if complaints:
        raise UserError("; ".join(complaints))
