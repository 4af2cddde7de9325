"""What was tried before a recipe was settled: runs judged on the validation split, kept under `results/search`."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.paper import method_names
from harness.recipes import method_config, train_recipe
from harness.records import Record, read_records
from methods import get_method

FOLDER = "search"
_NOT_TRIED = frozenset({"eval_split", "tuning"})
"""Fields that differ from the recipe in every such run and are no part of what was tried."""


def searched_text(results_dir: Path) -> str:
    """A table for each model and task: what was tried for each method, its accuracy, and which of it the recipe has.

    Empty where no search is recorded.

    Raises:
        UserError: a bad record.
    """
    records = [
        record
        for record in read_records(Path(results_dir) / FOLDER)
        if record.kind == "train" and record.status == "completed"
    ]
    records.sort(key=lambda record: (record.task, record.model, record.method))
    groups = groupby(records, key=lambda record: (record.task, record.model))
    return "\n".join(_table(f"### {model}: {task}", list(group)) for (task, model), group in groups)


def _table(title: str, records: Sequence[Record]) -> str:
    shown = [name for name in ("IMG", "Avg", "BLEU-4", "CIDEr") if name in records[0].metrics]
    varied = sorted({name for method in {r.method for r in records} for name in _varied(records, method)})
    body = []
    for record in records:
        values, settled = _values(record), _settled(record)
        scores = [record.metrics[name].value for name in shown]
        taken = all(values[name] == settled.get(name) for name in varied if name in values)
        body.append(
            (
                method_names().get(record.method, record.method),
                *(str(values.get(name, "")) for name in varied),
                str(record.seed),
                *("n/a" if score is None else f"{score:.1f}" for score in scores),
                "yes" if taken else "",
            )
        )
    heads = ("Method", *varied, "Seed", *shown, "In the recipe")
    return f"{title}\n\n{tabulate(sorted(body), heads, tablefmt='github', disable_numparse=True)}\n"


def _varied(records: Sequence[Record], method: str) -> set[str]:
    """Fields that the runs of one method do not agree on."""
    runs = [_values(record) for record in records if record.method == method]
    return {name for name in runs[0] if any(run.get(name) != runs[0][name] for run in runs)}


def _values(record: Record) -> dict[str, Any]:
    """Every field of the method and of the recipe that a run was made with."""
    method, train = record.config.get("method"), record.config.get("train")
    assert isinstance(method, dict) and isinstance(train, dict), "a trained run has both"
    return {name: value for name, value in {**method, **train}.items() if name not in _NOT_TRIED}


def _settled(record: Record) -> dict[str, Any]:
    """The same fields of the recipe as it is now."""
    config = get_method(record.method).Config(**method_config(record.method, record.model, record.variant))
    recipe = train_recipe(record.method, record.model, record.task)
    return {**config.model_dump(mode="json"), **recipe.model_dump(mode="json")}
