"""Does one method beat another? Their runs with the same seeds and their answers to the same problems, side by side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate

from harness.config.recipes import REFERENCES
from harness.data.jsonio import parse_json_lines
from harness.errors import UserError
from harness.records import Record, default_label, predictions_path, read_records, record_path
from harness.report.paper import layout, load_paper
from harness.report.selection import select
from harness.stats import PairedTest, mcnemar, mean, paired_seeds

_NOTE = """\
- Difference: {a} minus {b}, mean over the seeds that both have ({seeds}); p: two-sided paired t-test over these seeds.
- Each line is a test of its own: among many columns one below 0.05 is expected by chance.
"""
_PROBLEMS_NOTE = """\
- Problems: every problem of one seed, answered by both; p: exact McNemar test on those that only one answers right.
  It knows the problems' spread, not the seeds'.
"""


_AGAIN = "make the run again with --force"


@dataclass(frozen=True)
class Comparison:
    """Two methods on one model and task.

    Attributes:
        a, b: labels of the runs, e.g. `dehvf` or `dehvf-keys_only`.
        model, task: what both were run on.
        seeds: the seeds that both have.
        means: metric -> mean over these seeds, of `a` and of `b`.
        metrics: metric -> paired test over these seeds.
        problems: seed -> McNemar's test over the problems; empty where the task has no right answers.
        notes: what was left out of the records, and why.
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
    """Compare two methods by the records that the tables take.

    Args:
        results_dir: folder of the records.
        a, b: labels: a method, `METHOD-ABLATION`, or a reference row such as `blind`.
        model: preset or model id, as in the records.
        task: `scienceqa` or `coco`.

    Raises:
        UserError: a label without a record that may stand in a table, no seed in common, or bad predictions.
    """
    table = _table_of(task)
    chosen = select([run for run in read_records(results_dir) if run.model == model], table, layout(table))
    runs = {group[0].label: {run.seed: run for run in group} for group in chosen.groups.values()}
    ours, theirs = (_runs_of(label, runs, model, task) for label in (a, b))
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    if not seeds:
        raise UserError(f"{a}, {b}: no seed in common on {model}; run both with the same --seeds")
    means, tests = {}, {}
    for column in layout(table).columns:
        pairs = {seed: (_value(ours[seed], column.key), _value(theirs[seed], column.key)) for seed in seeds}
        left = {seed: pair[0] for seed, pair in pairs.items() if pair[0] is not None}
        right = {seed: pair[1] for seed, pair in pairs.items() if pair[1] is not None}
        if len(left) == len(right) == len(seeds):
            means[column.key] = (mean(list(left.values())), mean(list(right.values())))
            tests[column.key] = paired_seeds(left, right)
    problems = {}
    for seed in seeds:
        answered, opposed = _right(ours[seed], results_dir), _right(theirs[seed], results_dir)
        if answered and opposed:
            if answered.keys() != opposed.keys():
                raise UserError(f"{a}, {b}: seed {seed}: the saved predictions are not of the same problems; {_AGAIN}")
            problems[seed] = mcnemar(answered, opposed)
    return Comparison(a, b, model, task, seeds, means, tests, problems, tuple(chosen.notes))


def compare_text(results_dir: Path, a: str, b: str, model: str, task: str, format: str) -> str:
    """`compare`, as JSON or as tables; see `compare`."""
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
    notes = _NOTE.format(a=a, b=b, seeds=", ".join(map(str, found.seeds)))
    notes += _PROBLEMS_NOTE if found.problems else ""
    return "\n\n".join([*text, notes + "".join(f"- {note}\n" for note in found.notes)])


def _table_of(task: str) -> int:
    """The paper's table that the task's scores stand in."""
    numbers = (
        int(number) for number, plan in load_paper().tables.items() if plan.task == task and "train" in plan.kinds
    )
    first = min(numbers, default=None)
    if first is None:
        tasks = sorted({plan.task for plan in load_paper().tables.values() if "train" in plan.kinds})
        raise UserError(f"--task {task}: no table has it; choose one of {', '.join(tasks)}")
    return first


def _runs_of(label: str, runs: Mapping[str, dict[int, Record]], model: str, task: str) -> dict[int, Record]:
    meant = default_label(*REFERENCES[label]) if label in REFERENCES else label
    if meant not in runs:
        known = ", ".join(sorted(runs)) or "none"
        raise UserError(f"{label}: no run of it on {model} for {task} that may stand in a table; there are: {known}")
    return runs[meant]


def _value(run: Record, column: str) -> float | None:
    return run.metrics[column].value if column in run.metrics else None


def _right(run: Record, results_dir: Path) -> dict[str, bool]:
    """Problem -> answered right; empty where no predictions are saved or the task has no right answers."""
    path = predictions_path(record_path(run, results_dir))
    if "Avg" not in run.metrics or not path.exists():
        return {}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_AGAIN}") from error
    right: dict[str, bool] = {}
    for place, row in parse_json_lines(content, str(path)):
        whole = isinstance(row, dict) and isinstance(row.get("qid"), str) and {"choice", "gold"} <= row.keys()
        if not whole or row["qid"] in right:
            raise UserError(f"{place}: expected a record with 'qid', 'choice' and 'gold', each qid once; {_AGAIN}")
        right[row["qid"]] = row["choice"] == row["gold"]
    return right


def _shown(test: PairedTest) -> tuple[str, str, str]:
    p = test.p_value
    return f"{test.difference:+.2f}", "n/a" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}", str(test.n)


def _grid(rows: Sequence[tuple[str, ...]], *headers: str) -> str:
    sides = ("left", *("right" for _ in headers[1:]))
    return str(tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=sides))
