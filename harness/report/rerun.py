"""A record against a second run of the same: what was different before it, and what came out differently."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness.data.jsonio import parse_json_lines
from harness.errors import UserError
from harness.escape import visible
from harness.files import read_file
from harness.records import Environment, Git, Record, predictions_path, spec_hash

Outcome = Literal["identical", "within", "different"]
_ROUNDING = 1e-9
"""Difference of two scores, in points, that only the order of a sum explains."""
_SCORES_ALIKE = 2.0
"""How many standard errors of a score two runs of the same may be apart, where the user gives no limit."""


@dataclass(frozen=True)
class Answers:
    """The saved answers of both runs.

    Attributes:
        count: number of answers in the record.
        different: how many of them the second run did not give again.
        first: the first of them: its sample, the field, and both values; None where all are the same.
    """

    count: int
    different: int
    first: str | None


@dataclass(frozen=True)
class Verification:
    """What became of a run that was made again.

    Attributes:
        outcome: `identical`, `within` the limit of every score, or `different`.
        points: the largest difference of a score.
        beyond: scores that differ by more than their limit, with the difference and the limit in points; the difference
            is None where only one of the runs has a value.
        answers: the saved answers; None where the record has none.
        losses: training loss at a step -> its two values, where they differ.
        before: what was different before the second run began, one line each.
    """

    outcome: Outcome
    points: float
    beyond: Mapping[str, tuple[float | None, float]]
    answers: Answers | None
    losses: Mapping[str, tuple[float | None, float | None]]
    before: tuple[str, ...]


def changed_inputs(record: Record, spec: Mapping[str, Any]) -> list[str]:
    """Return what a run would start from that the recorded one did not, one line each.

    Args:
        record: the record.
        spec: everything that can change the outcome of the run as it would be made now, as `spec_hash` takes it.
    """
    then = {
        "config": record.config,
        "data_hash": record.data.data_hash,
        "limit": record.data.limit,
        "skipped_images": record.data.skipped_images,
        "backbone": record.backbone.model_dump(mode="json"),
    }
    changed = [
        f"{path}: {_short(old)} in the record, {_short(new)} now"
        for name, value in then.items()
        for path, old, new in _leaves(name, value, spec.get(name))
    ]
    if not changed and (now := spec_hash(spec)) != record.spec_hash:
        # Whatever else a run depends on is in the record by its hash alone.
        texts = ", so the descriptions of the images are others" if "descriptions" in spec else ""
        changed.append(f"spec_hash: {record.spec_hash} in the record, {now} now{texts}")
    return changed


def changed_environment(then: Environment, now: Environment, code: tuple[Git, Git]) -> list[str]:
    """Return in which code, libraries and machine a run differs from the recorded one, one line each.

    Args:
        then, now: the environment of the record, and of the second run.
        code: the version of the code of both.
    """
    old, new = code
    lines = [f"code: {_commit(old)} in the record, {_commit(new)} now"] if _commit(old) != _commit(new) else []
    pairs = [
        ("python", then.python, now.python),
        *((name, version, now.versions.get(name)) for name, version in then.versions.items()),
        ("threads", then.threads, now.threads),
        ("processes", then.processes or 1, now.processes or 1),
        ("sharded", bool(then.sharded), bool(now.sharded)),
        ("deterministic", bool(then.deterministic), bool(now.deterministic)),
        ("gpu", then.gpu, now.gpu),
        ("cpu", then.cpu, now.cpu),
    ]
    return lines + [f"{name}: {_short(a)} in the record, {_short(b)} now" for name, a, b in pairs if a != b]


def verification(record: Record, path: Path, again: Record, again_path: Path, within: float | None) -> Verification:
    """Compare a record with the record of a second run.

    Args:
        record, path: the record, and its file.
        again, again_path: those of the second run.
        within: how far each score may be from the recorded one, in points; None takes two of its standard errors.

    Raises:
        UserError: saved predictions cannot be read.
    """
    points = 0.0
    beyond: dict[str, tuple[float | None, float]] = {}
    for name, metric in record.metrics.items():
        other = again.metrics[name].value if name in again.metrics else None
        if metric.value is None and other is None:
            continue
        limit = _SCORES_ALIKE * (metric.stderr or 0.0) if within is None else within
        apart = None if metric.value is None or other is None else abs(metric.value - other)
        apart = 0.0 if apart is not None and apart < _ROUNDING else apart
        points = max(points, apart or 0.0)
        if apart is None or apart > limit:
            beyond[name] = (apart, limit)
    answers = _answers(path, again_path)
    losses = _losses(record, again)
    same = not points and not beyond and not losses and (answers is None or not answers.different)
    outcome: Outcome = "identical" if same else "different" if beyond else "within"
    code = (record.git, again.git)
    before = tuple(changed_environment(record.environment, again.environment, code))
    return Verification(outcome, points, beyond, answers, losses, before)


def verification_text(found: Verification, format: str) -> str:
    """Return a verification as text: `json`, or lines for people, the last of which is the verdict."""
    if format == "json":
        return json.dumps(asdict(found), indent=2)
    lines = [f"differs before the run: {line}" for line in found.before]
    lines += [f"loss of the {step} step: {old} in the record, {new} now" for step, (old, new) in found.losses.items()]
    if found.answers is not None and found.answers.first is not None:
        lines.append(f"first answer that differs: {found.answers.first}")
    lines += [_beyond_text(name, *pair) for name, pair in found.beyond.items()]
    return "\n".join(visible(line) for line in [*lines, _verdict(found)])


def no_comparison_text(reason: str, before: Sequence[str], format: str) -> str:
    """Return the text on a second run that could not be compared, in the forms of `verification_text`.

    Args:
        reason: why it could not.
        before: what was different before it began, one line each.
        format: `json`, or another for people.
    """
    if format == "json":
        return json.dumps({"outcome": "different", "reason": reason, "before": list(before)}, indent=2)
    return "\n".join(visible(line) for line in [*(f"differs: {line}" for line in before), f"different: {reason}"])


def _beyond_text(name: str, apart: float | None, limit: float) -> str:
    if apart is None:
        return f"{name} has a value in one of the two runs only"
    return f"{name} differs by {apart:.2f} points; the limit is {limit:.2f}"


def _verdict(found: Verification) -> str:
    answers = found.answers
    if answers is None:
        counted = "no answers are saved with the record"
    elif answers.different:
        counted = f"{answers.different:,} of {answers.count:,} answers differ"
    else:
        counted = f"all {answers.count:,} answers are the same"
    if found.outcome == "identical":
        return f"identical: scores and losses are the same; {counted}"
    if found.outcome == "within":
        return f"within {found.points:.2f} points: {counted}"
    return f"different: scores differ by up to {found.points:.2f} points; {counted}"


def _answers(path: Path, again_path: Path) -> Answers | None:
    ours, theirs = (_rows(predictions_path(one)) for one in (path, again_path))
    if ours is None:
        return None
    theirs = theirs or []
    found = [line for old, new in zip(ours, theirs, strict=False) if (line := _difference(old, new))]
    missing = abs(len(ours) - len(theirs))
    first = found[0] if found else f"{len(ours):,} rows in the record, {len(theirs):,} now" if missing else None
    return Answers(len(ours), len(found) + missing, first)


def _rows(path: Path) -> list[Any] | None:
    if not path.exists():
        return None
    try:
        content = read_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return [row for _, row in parse_json_lines(content, str(path))]


def _difference(old: Any, new: Any) -> str | None:
    """Return in which field two rows differ; fields that only one of them has do not count."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return None if old == new else f"{_short(old)} in the record, {_short(new)} now"
    sample = next((f"{name} {value}" for name, value in old.items()), "an empty row")
    for name in old:
        if name in new and old[name] != new[name]:
            return f"{sample}: {name}: {_short(old[name])} in the record, {_short(new[name])} now"
    return None


def _losses(record: Record, again: Record) -> dict[str, tuple[float | None, float | None]]:
    pairs = {
        step: tuple(getattr(run.loss, step) if run.loss else None for run in (record, again))
        for step in ("first", "last")
    }
    return {step: (old, new) for step, (old, new) in pairs.items() if old != new}


def _leaves(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the path of every value that differs, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _leaves(f"{path}.{name}", old.get(name), new.get(name))
    elif old != new:
        yield path, old, new


def _commit(git: Git) -> str:
    return "unknown" if git.commit is None else git.commit[:12] + (" with uncommitted changes" if git.dirty else "")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
