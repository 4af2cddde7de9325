"""Tables of the hyper-parameter searches, whose runs use the validation split and are stored in `results/search`."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mode
from typing import Any

from harness.config.lookup import named_method
from harness.config.presets import PRESETS
from harness.config.recipes import method_config, train_recipe
from harness.errors import UserError
from harness.escape import markdown, text_table
from harness.records import Record, default_label, read_records
from harness.report.paper import method_names
from harness.tasks.facts import TASKS

FOLDER = "search"
THE_RECIPE = "the recipe itself"
_NOT_TRIED = frozenset({"eval_split", "tuning"})
"""Settings that differ from the recipe in every trial of a search but were not searched."""
_LONGEST = 1_000_000
"""No training has more epochs."""
_LENGTH = ("epochs", "warmup_epochs")
"""Settings whose usual value among the trials of a method was not searched: trials may train for a shorter time."""


def searched_text(results_dir: Path) -> str:
    """Return a table for each model and task: the settings tried for each method, and the scores they reached.

    Args:
        results_dir: the results folder.

    Returns:
        The tables in markdown; empty where no search is recorded. A trial with the recipe as it is now is marked.

    Raises:
        UserError: a record has an error.
    """
    records = [
        record
        for record in read_records(Path(results_dir) / FOLDER)
        if record.kind == "train" and record.status == "completed"
    ]
    records.sort(key=lambda record: (record.task, record.model, record.label))
    groups = groupby(records, key=lambda record: (record.task, record.model))
    return "\n".join(_table(f"### {markdown(model)}: {task}", list(group)) for (task, model), group in groups)


def _table(title: str, records: Sequence[Record]) -> str:
    facts = TASKS.get(records[0].task)
    shown = [name for name in (facts.headline if facts else ()) if any(name in record.metrics for record in records)]
    body, lengths = [], []
    for (method, variant), group in groupby(records, key=lambda record: (record.method, record.variant)):
        trials = list(group)
        lengths += [_values(record).get("epochs") for record in trials]
        rows = [(tried(record, trials), record) for record in trials]
        for changed, record in sorted(rows, key=_order):
            text = ", ".join(f"{name} {value}" for name, value in changed.items())
            body.append(
                (
                    method_names().get(method, method) if variant is None else default_label(method, variant),
                    text or THE_RECIPE,
                    str(record.seed),
                    *(_score(record, name) for name in shown),
                )
            )
    heads = ("Method", "Tried, else as the recipe", "Seed", *shown)
    recipe, epochs = _recipe_now(records[0]), _usual(lengths)
    length = ""
    if recipe is not None and epochs is not None and epochs != recipe["epochs"]:
        length = f"The trials train for {epochs:g} epochs where the table says nothing else, and the recipe trains for "
        length += f"{recipe['epochs']:g}.\n\n"
    return f"{title}\n\n{length}{text_table(body, heads)}\n"


def _order(row: tuple[Mapping[str, Any], Record]) -> tuple[object, ...]:
    """Return a sort key: the recipe first, then by field, and by value within a field."""
    changed, record = row
    fields = [(name, value if isinstance(value, int | float) else 0.0, str(value)) for name, value in changed.items()]
    return fields, record.seed


def _score(record: Record, name: str) -> str:
    metric = record.metrics.get(name)
    if metric is None or metric.value is None:
        return "n/a"
    return f"{metric.value:.1f}" if metric.stderr is None else f"{metric.value:.1f} (se {metric.stderr:.1f})"


def tried(record: Record, trials: Sequence[Record]) -> dict[str, Any]:
    """Return the settings of a trial that differ from the recipe as it is now, by field.

    Args:
        record: the trial.
        trials: all trials of the same method, model and task. The length of training is compared with the usual one
            among them. All settings are compared among them where the model is not a preset, because the record does
            not say which recipe such a run started from, and where the method is not installed.
    """
    values = _values(record)
    recipe = _recipe_now(record)
    others = [_values(trial) for trial in trials]
    if recipe is not None:
        usual = {name: _usual(other.get(name) for other in others) for name in _LENGTH}
        return {name: value for name, value in sorted(values.items()) if value != {**recipe, **usual}.get(name)}
    return {n: value for n, value in sorted(values.items()) if any(other.get(n) != value for other in others)}


def _usual(values: Iterable[Any]) -> float | None:
    """Return the most frequent number among values of records, which may be anything; None where there is none."""
    numbers = [
        value
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LONGEST
    ]
    return mode(numbers) if numbers else None


def _values(record: Record) -> dict[str, Any]:
    """Return every setting of the method and of the recipe that a run was made with."""
    sections = [record.config.get(name) for name in ("method", "train")]
    settings = [item for section in sections if isinstance(section, dict) for item in section.items()]
    return {name: value for name, value in settings if name not in _NOT_TRIED}


def _recipe_now(record: Record) -> Mapping[str, Any] | None:
    """Return the same settings with the values of the current recipe; None where there is no such recipe here."""
    if record.model not in PRESETS:
        return None
    try:
        config = named_method(record.method).Config(**method_config(record.method, record.model, record.variant))
    except UserError:
        return None
    recipe = train_recipe(record.method, record.model, record.task)
    return {**config.model_dump(mode="json"), **recipe.model_dump(mode="json")}
