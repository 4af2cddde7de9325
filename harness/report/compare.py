"""Compare two methods: a verdict in a sentence, and the difference in every column with its interval and power."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.config.recipes import REFERENCES
from harness.errors import UserError
from harness.escape import markdown, text_table
from harness.numbers import signed
from harness.records import default_label, read_records, remarks_about
from harness.report.differences import Runs, by_seed, difference
from harness.report.paper import layout, method_names
from harness.report.selection import select
from harness.report.tables import labels_with_a_row
from harness.report.verdict import MODELS, p_text, verdict
from harness.stats import Difference, holm, mean
from harness.tasks.facts import TaskFacts, task_facts
from harness.terminal import Column, document, fitting, table_lines

_NOTE = """\
- Protocol: {protocol}.
- Difference: {a} minus {b}, mean over the seeds that both have ({seeds}), with its 95 % interval.
- p: two-sided. The verdict is on {summary}, which was chosen before any result, so its p is not corrected. p (Holm):
  the other columns, corrected for their number. A column differs where this is below 0.05.
- Detectable: the true difference that one test at 5 % finds with a probability of 80 %, by the variation seen here.
"""
_OWN_PROTOCOLS = "Each method has its own protocol here, so a difference may come from the protocols. "
_LACKING = "Seeds whose predictions are missing are left out of the differences, but not of the means."


@dataclass(frozen=True)
class Comparison:
    """Two methods on one model and task.

    Attributes:
        a, b: labels of the two methods, such as `dehvf` or `dehvf-keys_only`.
        model, task: what both were run on.
        protocol: the protocol of all runs.
        seeds: the seeds that both methods have.
        verdict: what follows, in plain sentences.
        means: column -> mean of `a` and mean of `b` over these seeds.
        differences: column -> the first minus the second. Columns in which a run has no value are left out.
        corrected: column -> p-value corrected over the columns; that of the summary column is as it was. None where
            there is no p-value.
        notes: what a reader must know, and which records were left out and why.
    """

    a: str
    b: str
    model: str
    task: str
    protocol: str
    seeds: tuple[int, ...]
    verdict: str
    means: Mapping[str, tuple[float, float]]
    differences: Mapping[str, Difference]
    corrected: Mapping[str, float | None]
    notes: tuple[str, ...]


def compare(results_dir: Path, a: str, b: str, model: str, task: str, protocol: str = "uniform") -> Comparison:
    """Compare two methods by the records that enter the tables.

    Args:
        results_dir: the results folder.
        a, b: labels: a method, `METHOD-ABLATION`, or a reference row such as `blind`.
        model: preset or model id, as in the records.
        task: `scienceqa` or `coco`.
        protocol: the protocol of the runs.

    Raises:
        UserError: there is no such task, a label has no record that may enter a table, the two have no seed in common,
            or saved predictions have an error.
    """
    facts = task_facts(task)
    plan = layout(facts.table)
    records = [run for run in read_records(results_dir) if run.model == model]
    # The same runs as in the table, which chooses among those that it has a row for. An ablation has none there.
    asked = {_meant(a), _meant(b)} | labels_with_a_row(records, facts.table, model)
    chosen = select((run for run in records if run.label in asked), facts.table, plan, protocol)
    runs = {group[0].label: by_seed(group) for group in chosen.groups.values()}
    for label in (a, b):
        if _meant(label) not in runs:
            groups = select(records, facts.table, plan, protocol).groups.values()
            known = ", ".join(sorted(group[0].label for group in groups)) or "none"
            none = f"{label}: none of its runs on {model} for {task} may enter a table"
            raise UserError(f"{none}; choose from: {known}")
    ours, theirs = runs[_meant(a)], runs[_meant(b)]
    compared = {run.label for run in (*ours.values(), *theirs.values())}
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    if not seeds:
        raise UserError(f"{a}, {b}: no seed in common on {model}; run both with the same --seeds")
    columns = [column.key for column in plan.columns]
    found = {name: difference(ours, theirs, name, results_dir) for name in columns}
    differences = {name: one for name, one in found.items() if one is not None}
    corrected = correct(differences, facts)
    return Comparison(
        a,
        b,
        model,
        task,
        protocol,
        seeds,
        ("" if protocol == "uniform" else _OWN_PROTOCOLS)
        + verdict(_name(a, ours), _name(b, theirs), facts.summary, differences, corrected),
        {name: (_mean(ours, seeds, name), _mean(theirs, seeds, name)) for name in differences},
        differences,
        corrected,
        (
            *([_LACKING] if any(one.seeds < len(seeds) for one in differences.values()) else []),
            *chosen.notes(lambda run: run.label in compared),
            *remarks_about((*ours.values(), *theirs.values()), results_dir),
        ),
    )


def correct(differences: Mapping[str, Difference], facts: TaskFacts) -> dict[str, float | None]:
    """Return the p-value of every column, all but that of the summary column corrected for their number by Holm."""
    others = {name: one.p_value for name, one in differences.items() if name != facts.summary}
    tested = {name: p for name, p in others.items() if p is not None}
    raised = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {name: one.p_value if name == facts.summary else raised.get(name) for name, one in differences.items()}


def compare_text(
    results_dir: Path,
    a: str,
    b: str,
    model: str,
    task: str,
    format: str,
    protocol: str = "uniform",
    *,
    width: int | None = None,
) -> str:
    """Return the result of `compare` as text.

    Args:
        results_dir, a, b, model, task: see `compare`.
        format: `json`; anything else gives the verdict, a table and notes in markdown.
        protocol: see `compare`.
        width: columns of the terminal, which all but `json` fits; None for files and pipes.

    Raises:
        UserError: see `compare`.
    """
    found = compare(results_dir, a, b, model, task, protocol)
    if format == "json":
        return json.dumps(asdict(found), indent=2)
    rows = [
        (name, *(f"{value:.2f}" for value in found.means[name]), *_shown(one, found.corrected[name]))
        for name, one in found.differences.items()
    ]
    heads = ("Column", a, b, "Difference", "95 % interval", "p", "p (Holm)", "Detectable", "Seeds", "Problems")
    notes = _NOTE.format(
        a=markdown(a),
        b=markdown(b),
        protocol=protocol,
        seeds=", ".join(map(str, found.seeds)),
        summary=task_facts(task).summary,
    )
    used = dict.fromkeys(one.over for one in found.differences.values())
    notes += "".join(f"- {_columns_of(found.differences, over)}: {MODELS[over]}\n" for over in used)
    notes += "".join(f"- {markdown(note)}\n" for note in found.notes)
    if width is not None:
        table, hint = _fitted(heads, rows, width)
        return f"{document(markdown(found.verdict), width)}\n{table}{document(notes + hint, width)}"
    table = text_table(rows, heads, ("left", *("right" for _ in heads[1:])))
    return f"{markdown(found.verdict)}\n\n{table}\n\n{notes}"


_KEPT = (0, 0, 0, 0, 1, 4, 2, 5, 3, 6)
"""The order in which the columns of the table are kept where a terminal is narrow; those with 0 always are."""


def _fitted(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[str, str]:
    """Return the table with the columns that a terminal has room for, and a note on the others."""
    columns = [
        Column(head, [row[place] for row in rows], right=place > 0, keep=_KEPT[place])
        for place, head in enumerate(heads)
    ]
    fit = fitting(columns, width)
    hidden = [column.title for column in columns if column not in fit]
    hint = f"- Not shown, because the terminal is narrow: {', '.join(hidden)}. A file or a pipe gets all columns.\n"
    return table_lines(fit, width), hint if hidden else ""


def _columns_of(differences: Mapping[str, Difference], over: str) -> str:
    names = [name for name, one in differences.items() if one.over == over]
    return "All columns" if len(names) == len(differences) else ", ".join(names)


def _meant(label: str) -> str:
    """Return the label of the runs that a label stands for."""
    return default_label(*REFERENCES[label]) if label in REFERENCES else label


def _name(label: str, runs: Runs) -> str:
    """Return what a sentence calls a method: its name in the paper, or the label of an ablation."""
    run = next(iter(runs.values()))
    return method_names().get(run.method, label) if run.variant is None else label


def _mean(runs: Runs, seeds: Sequence[int], column: str) -> float:
    values = [runs[seed].metrics[column].value for seed in seeds]
    return mean([value for value in values if value is not None])


def _shown(one: Difference, corrected: float | None) -> tuple[str, ...]:
    interval = "n/a" if one.low is None or one.high is None else f"{signed(one.low)} to {signed(one.high)}"
    detectable = "n/a" if one.detectable is None else f"{one.detectable:.2f}"
    problems = "-" if one.problems is None else str(one.problems)
    p_values = (p_text(one.p_value), p_text(corrected))
    return (signed(one.value), interval, *p_values, detectable, str(one.seeds), problems)
