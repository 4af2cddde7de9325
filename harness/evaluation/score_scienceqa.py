"""Scoring saved ScienceQA answers against a problems file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data.jsonio import parse_json, parse_json_lines
from harness.data.problem import Problem, parse_problem
from harness.data.scienceqa import read_problems, read_splits
from harness.errors import UserError
from harness.evaluation.ids import listing, repeated
from harness.evaluation.reading import read_answer
from harness.evaluation.scienceqa_metrics import score_scienceqa
from harness.files import read_file

_KEYS = frozenset({"qid", "question_id"})
"""Keys of which each record of a file with lines has one."""


def read_split(problems: Path, splits: Path, split: str = "test") -> list[Problem]:
    """Read the problems of one split from their metadata alone.

    Image files are not needed: `Problem.image` is the name in the metadata, not the path of a file.

    Args:
        problems: path of `problems.json`.
        splits: path of `pid_splits.json`.
        split: name of the split.

    Raises:
        UserError: a file or record has an error, or there is no such split.
    """
    raw = read_problems(problems)
    ids = read_splits(splits)
    if split not in ids:
        raise UserError(f"{splits}: no split {split!r}; choose one of {', '.join(ids)}")
    absent = [qid for qid in ids[split] if qid not in raw]
    if absent:
        raise UserError(f"{problems}: problems of split {split!r} are missing: {listing(absent)}; add them")
    chosen = []
    for qid in ids[split]:
        problem = parse_problem(qid, raw[qid], source=str(problems))
        name = raw[qid].get("image")
        chosen.append(replace(problem, image=None if name is None else Path(name)))
    return chosen


def read_predictions(path: Path, problems: Mapping[str, Problem]) -> dict[str, int | None]:
    """Read predictions in any of five formats.

    Two formats have one record per line: a run's predictions, with `qid` and `choice`, and LLaVA's answers, with
    `question_id` and `text`. The others are `{qid: index}`; `{"results": {qid: index}}`; and
    `{"outputs": {qid: text}}`, whose texts are read by the reference code's pattern. Where a file has both `results`
    and `outputs`, `results` is taken, because that is what the authors scored. The name of the file does not matter.

    Args:
        path: the file.
        problems: qid -> problem, for the number of choices and to check a saved gold answer.

    Returns:
        qid -> index of the choice, or None where the answer could not be read.

    Raises:
        UserError: the file is in none of the formats, a value has the wrong type, a saved gold answer differs from the
            problem's, or a qid occurs twice (the message lists these qids).
    """
    try:
        text = read_file(Path(path)).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a text file in UTF-8") from error
    if path.suffix == ".jsonl" or _has_lines(text):
        return _from_records(path, parse_json_lines(text.encode(), str(path)), problems)
    data = parse_json(text, str(path))
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a JSON object, or one record per line; give such a file")
    if "results" in data:
        return _from_indices(path, data["results"])
    if "outputs" in data:
        return _from_texts(path, data["outputs"], problems)
    return _from_indices(path, data)


def _has_lines(text: str) -> bool:
    """Return whether a text has one JSON object per line, rather than one JSON value."""
    first, _, rest = text.strip().partition("\n")
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        return False
    # A single line is a record if it has a record's key; `{qid: index}` may be on one line too.
    return isinstance(record, dict) and (bool(rest.strip()) or not _KEYS.isdisjoint(record))


def _pairs(path: Path, table: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(table, dict) or not table:
        raise UserError(f"{path}: expected a non-empty object that maps problem ids to answers; correct the file")
    yield from table.items()


def _choice(path: Path, qid: str, value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise UserError(f"{path}: problem {qid}: {value!r} is not a choice index; give an integer from 0, or null")


def _from_indices(path: Path, table: Any) -> dict[str, int | None]:
    return {qid: _choice(path, qid, value) for qid, value in _pairs(path, table)}


def _from_texts(path: Path, table: Any, problems: Mapping[str, Problem]) -> dict[str, int | None]:
    choices: dict[str, int | None] = {}
    for qid, text in _pairs(path, table):
        if not isinstance(text, str):
            raise UserError(f"{path}: problem {qid}: the output is not text; give a string")
        # Keep unknown ids: the scorer lists all of them in one message.
        choices[qid] = read_answer(text, len(problems[qid].choices), loose=True) if qid in problems else None
    return choices


def _from_records(path: Path, lines: list[tuple[str, Any]], problems: Mapping[str, Problem]) -> dict[str, int | None]:
    choices: dict[str, int | None] = {}
    qids: list[str] = []
    for place, record in lines:
        if isinstance(record, dict) and "question_id" in record:
            qid, said = _llava_answer(place, record)
            qids.append(qid)
            choices[qid] = read_answer(said, len(problems[qid].choices)) if qid in problems else None
            continue
        if not isinstance(record, dict) or not isinstance(record.get("qid"), str) or "choice" not in record:
            raise UserError(f"{place}: expected 'qid' and 'choice', or 'question_id' and 'text'; add them")
        qid = record["qid"]
        qids.append(qid)
        choices[qid] = _choice(path, qid, record["choice"])
        if qid in problems and record.get("gold") not in (None, problems[qid].answer):
            wrong = "its gold answer differs from the one in the problems file; give the file that was answered"
            raise UserError(f"{path}: problem {qid}: {wrong}")
    if twice := repeated(qids):
        raise UserError(f"{path}: problems with two predictions: {listing(twice)}; keep one of each")
    return choices


def _llava_answer(place: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """Return the problem's id and the text of an answer line of LLaVA."""
    qid, text = record["question_id"], record.get("text")
    if isinstance(qid, bool) or not isinstance(qid, str | int) or not isinstance(text, str):
        raise UserError(f"{place}: expected 'question_id' and 'text', and the text to be a string; correct the line")
    return str(qid), text


def score_scienceqa_files(
    problems: Path, splits: Path, predictions: Path, split: str = "test"
) -> dict[str, dict[str, Any]]:
    """Score a saved set of answers in the nine columns.

    Args:
        problems: path of `problems.json`; subject and grade may be missing.
        splits: path of `pid_splits.json`.
        predictions: the answers, see `read_predictions`.
        split: the split that was answered.

    Returns:
        column -> {value, n, stderr, missing, failures, reason}; value and stderr in percent. `missing` and `failures`
        are the fields `missing` and `unreadable` of `ScienceQAScores`.

    Raises:
        UserError: a file has an error, or a qid is missing, unknown or given twice.
    """
    chosen = read_split(Path(problems), Path(splits), split)
    answers = read_predictions(Path(predictions), {problem.qid: problem for problem in chosen})
    try:
        scores = score_scienceqa(chosen, answers)
    except UserError as error:
        raise UserError(f"{predictions}: {error}") from error
    return {
        column: {
            "value": metric.value,
            "n": metric.n,
            "stderr": metric.stderr,
            "missing": scores.missing[column],
            "failures": scores.unreadable[column],
            "reason": metric.reason,
        }
        for column, metric in scores.metrics.items()
    }
