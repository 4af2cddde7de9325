"""Scoring saved ScienceQA answers against a problems file."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data.jsonio import read_json_or_lines, repeated
from harness.data.problem import Problem, parse_problem
from harness.data.scienceqa import read_problems, read_splits
from harness.errors import UserError
from harness.evaluation.ids import listing
from harness.evaluation.reading import read_answer
from harness.evaluation.scienceqa_metrics import score_scienceqa

_IDS = ("qid", "question_id")
"""Keys of a record's problem id, of which each record has one."""
_ANSWERS = ("choice", "text")
"""Keys of a record's answer, as an index and in words, of which each record has one."""


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

    Two formats have one record per problem: a run's predictions, with `qid` and `choice`, and LLaVA's answers, with
    `question_id` and `text`. The records are lines, or the entries of one JSON array; an id may be a whole number. The
    other formats are `{qid: index}`; `{"results": {qid: index}}`; and `{"outputs": {qid: text}}`, whose texts are read
    by the reference code's pattern. Where a file has both `results` and `outputs`, `results` is taken, because that is
    what the authors scored. The name of the file does not matter.

    Args:
        path: the file.
        problems: qid -> problem, for the number of choices and to check a saved gold answer.

    Returns:
        qid -> index of the choice, or None where the answer could not be read.

    Raises:
        UserError: the file is in none of the formats, a record has two ids or two answers, a value has the wrong type,
            a saved gold answer differs from the problem's, or a qid occurs twice (the message lists these qids).
    """
    path = Path(path)
    data, lines = read_json_or_lines(path)
    if lines is not None:
        return _from_records(path, lines, problems)
    if isinstance(data, list):
        entries = ((f"{path}, entry {number}", record) for number, record in enumerate(data, 1))
        return _from_records(path, entries, problems)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a JSON object or array, or one record per line; give such a file")
    if not data.keys().isdisjoint(_IDS):
        return _from_records(path, [(str(path), data)], problems)
    if "results" in data:
        return _from_indices(path, data["results"])
    if "outputs" in data:
        return _from_texts(path, data["outputs"], problems)
    return _from_indices(path, data)


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
        choices[qid] = read_answer(text, len(problems[qid].choices), loose=True, once=True) if qid in problems else None
    return choices


def _from_records(
    path: Path, records: Iterable[tuple[str, Any]], problems: Mapping[str, Problem]
) -> dict[str, int | None]:
    """Return the choices of records, each of which comes with its place in the file."""
    choices: dict[str, int | None] = {}
    qids: list[str] = []
    for place, record in records:
        qid, answer = _id_and_answer(place, record)
        qids.append(qid)
        if answer == "text":
            said = record["text"]
            if not isinstance(said, str):
                raise UserError(f"{place}: the 'text' is not text; give a string")
            choices[qid] = read_answer(said, len(problems[qid].choices)) if qid in problems else None
            continue
        choices[qid] = _choice(path, qid, record["choice"])
        if qid in problems and record.get("gold") not in (None, problems[qid].answer):
            wrong = "its gold answer differs from the one in the problems file; give the file that was answered"
            raise UserError(f"{path}: problem {qid}: {wrong}")
    if not qids:
        raise UserError(f"{path}: has no predictions; give a file with one for each problem")
    if twice := repeated(qids):
        raise UserError(f"{path}: problems with two predictions: {listing(twice)}; keep one of each")
    return choices


def _id_and_answer(place: str, record: Any) -> tuple[str, str]:
    """Return the problem id of a record, and the key of its answer."""
    keys = [[key for key in known if isinstance(record, dict) and key in record] for known in (_IDS, _ANSWERS)]
    for found in keys:
        if len(found) > 1:
            raise UserError(f"{place}: has both {found[0]!r} and {found[1]!r}; remove one of them")
        if not found:
            raise UserError(f"{place}: expected 'qid' and 'choice', or 'question_id' and 'text'; add them")
    (key,), (answer,) = keys
    qid = record[key]
    if isinstance(qid, bool) or not isinstance(qid, str | int):
        raise UserError(f"{place}: the {key!r} is neither text nor a whole number; correct it")
    return str(qid), answer


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
