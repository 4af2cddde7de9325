"""Compare two methods: their runs with the same seeds, and their answers to the same problems."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.config.recipes import REFERENCES
from harness.data.jsonio import parse_json_lines
from harness.errors import UserError
from harness.escape import markdown, text_table
from harness.files import read_file
from harness.records import Record, default_label, predictions_path, read_records, record_path
from harness.report.paper import layout
from harness.report.selection import select
from harness.stats import PairedTest, mcnemar, mean, paired_seeds
from harness.tasks.facts import AnswerKeys, task_facts

_NOTE = """\
- Difference: {a} minus {b}, mean over the seeds that both have ({seeds}). p: two-sided paired t-test over these seeds.
- Each line is a separate test: among many columns, one p below 0.05 is expected by chance.
"""
_PROBLEMS_NOTE = """\
- Problems: all problems of one seed, answered by both methods. p: exact McNemar test on the problems that only one of
  them answers correctly. It covers the variation between problems, not the variation between seeds.
"""
_RUN_AGAIN = "repeat the run with --force"


@dataclass(frozen=True)
class Comparison:
    """Two methods on one model and task.

    Attributes:
        a, b: labels of the two methods, such as `dehvf` or `dehvf-keys_only`.
        model, task: what both were run on.
        seeds: the seeds that both methods have.
        means: metric -> mean of `a` and mean of `b` over these seeds.
        metrics: metric -> paired test over these seeds.
        problems: seed -> McNemar's test over the problems; empty where the task has no right answers, or where the
            predictions were not saved.
        notes: which records were left out, and why.
    """

    a: str
    b: str
    model: str
    task: str
    seeds: tuple[int, ...]
    means: Mapping[str, tuple[float, float]]
    metrics: Mapping[str, PairedTest]
    problems: Mapping[int, PairedTest]
    notes: tuple[str, ...]


def compare(results_dir: Path, a: str, b: str, model: str, task: str) -> Comparison:
    """Compare two methods by the records that enter the tables.

    Args:
        results_dir: the results folder.
        a, b: labels: a method, `METHOD-ABLATION`, or a reference row such as `blind`.
        model: preset or model id, as in the records.
        task: `scienceqa` or `coco`.

    Raises:
        UserError: there is no such task, a label has no record that may enter a table, the two have no seed in common,
            or saved predictions have an error.
    """
    facts = task_facts(task)
    table = facts.table
    chosen = select([run for run in read_records(results_dir) if run.model == model], table, layout(table))
    runs = {group[0].label: {run.seed: run for run in group} for group in chosen.groups.values()}
    ours, theirs = (_runs_of(label, runs, model, task) for label in (a, b))
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    if not seeds:
        raise UserError(f"{a}, {b}: no seed in common on {model}; run both with the same --seeds")
    means, tests = _over_seeds(ours, theirs, seeds, [column.key for column in layout(table).columns])
    problems = {}
    if facts.answers is not None:
        for seed in seeds:
            mine, other = (_right_answers(group[seed], results_dir, facts.answers) for group in (ours, theirs))
            if mine and other:
                problems[seed] = _over_problems(mine, other, f"{a}, {b}: seed {seed}")
    return Comparison(a, b, model, task, seeds, means, tests, problems, tuple(chosen.notes))


def _over_seeds(
    ours: Mapping[int, Record], theirs: Mapping[int, Record], seeds: Sequence[int], columns: Sequence[str]
) -> tuple[dict[str, tuple[float, float]], dict[str, PairedTest]]:
    """Return means and paired tests by column, for the columns in which every run has a value."""
    means, tests = {}, {}
    for column in columns:
        pairs = {seed: (_value(ours[seed], column), _value(theirs[seed], column)) for seed in seeds}
        left = {seed: pair[0] for seed, pair in pairs.items() if pair[0] is not None}
        right = {seed: pair[1] for seed, pair in pairs.items() if pair[1] is not None}
        if len(left) == len(right) == len(seeds):
            means[column] = (mean(list(left.values())), mean(list(right.values())))
            tests[column] = paired_seeds(left, right)
    return means, tests


def _over_problems(mine: Mapping[str, bool], other: Mapping[str, bool], where: str) -> PairedTest:
    """Return McNemar's test over the problems of one seed.

    `mine` and `other` map the id of each problem to whether the method answered it correctly.
    """
    if mine.keys() != other.keys():
        raise UserError(f"{where}: the saved predictions are not for the same problems; repeat both runs with --force")
    return mcnemar(mine, other)


def compare_text(results_dir: Path, a: str, b: str, model: str, task: str, format: str) -> str:
    """Return the result of `compare` as text.

    Args:
        results_dir, a, b, model, task: see `compare`.
        format: `json`; anything else gives tables in markdown.

    Raises:
        UserError: see `compare`.
    """
    found = compare(results_dir, a, b, model, task)
    if format == "json":
        return json.dumps(asdict(found), indent=2)
    metrics = [
        (name, *(f"{value:.2f}" for value in found.means[name]), *_shown(test)) for name, test in found.metrics.items()
    ]
    text = [_grid(metrics, "Column", a, b, "Difference", "p", "Seeds")]
    if found.problems:
        rows = [(str(seed), *_shown(test)) for seed, test in found.problems.items()]
        text.append(_grid(rows, "Seed", "Difference", "p", "Problems"))
    notes = _NOTE.format(a=markdown(a), b=markdown(b), seeds=", ".join(map(str, found.seeds)))
    notes += _PROBLEMS_NOTE if found.problems else ""
    return "\n\n".join([*text, notes + "".join(f"- {markdown(note)}\n" for note in found.notes)])


def _runs_of(label: str, runs: Mapping[str, dict[int, Record]], model: str, task: str) -> dict[int, Record]:
    meant = default_label(*REFERENCES[label]) if label in REFERENCES else label
    if meant not in runs:
        known = ", ".join(sorted(runs)) or "none"
        raise UserError(f"{label}: none of its runs on {model} for {task} may enter a table; choose from: {known}")
    return runs[meant]


def _value(run: Record, column: str) -> float | None:
    return run.metrics[column].value if column in run.metrics else None


def _right_answers(run: Record, results_dir: Path, keys: AnswerKeys) -> dict[str, bool]:
    """Return whether each problem was answered correctly; empty where no predictions are saved."""
    path = predictions_path(record_path(run, results_dir))
    if not path.exists():
        return {}
    try:
        content = read_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_RUN_AGAIN}") from error
    right: dict[str, bool] = {}
    for place, row in parse_json_lines(content, str(path)):
        complete = isinstance(row, dict) and {keys.sample, keys.given, keys.expected} <= row.keys()
        if not complete or not isinstance(row[keys.sample], str) or row[keys.sample] in right:
            raise UserError(
                f"{place}: expected a record with '{keys.sample}', '{keys.given}' and '{keys.expected}', "
                f"each {keys.sample} once; {_RUN_AGAIN}"
            )
        right[row[keys.sample]] = row[keys.given] == row[keys.expected]
    return right


def _shown(test: PairedTest) -> tuple[str, str, str]:
    p = test.p_value
    return f"{test.difference:+.2f}", "n/a" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}", str(test.n)


def _grid(rows: Sequence[tuple[str, ...]], *headers: str) -> str:
    sides = ("left", *("right" for _ in headers[1:]))
    return text_table(rows, headers, sides)
