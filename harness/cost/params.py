"""Counts of trainable parameters of every method and ablation, beside the counts that the paper prints.

Methods are built on the meta device, so no weights are loaded.
"""

import json
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, TypedDict

from harness.cost.meta import cost_spec, method_names, method_plan
from harness.cost.output import is_json, markdown_table, rounded, shown_table
from harness.records import Parameters
from harness.report.paper import load_paper, printed_trainable
from harness.run.attach import attach_on_meta, meta_backbone
from harness.run.parameters import count_parameters
from methods import get_method

_UNITS = {"M": 10**6, "B": 10**9}
OTHER_MODEL = "choose another --model, or remove the method from --methods"
"""What the user can do if a method cannot be built at the size of a model."""


class ParameterRow(TypedDict):
    """The counts of one method or ablation on one model.

    `trainable` follows the paper's convention, which includes parameters that the reference code counts but never
    trains. `trained` counts the parameters that receive gradients here. `paper` is the printed number, and `matches`
    says whether `trainable` rounds to it; both are null if the paper prints none.
    """

    method: str
    variant: str | None
    model: str
    trainable: int
    trained: int
    total: int
    paper: str | None
    matches: bool | None
    by_module: dict[str, dict[str, Any]]


def matches_printed(count: int, printed: str) -> bool:
    """Return whether `count`, rounded half up to the precision of `printed` (`4.17M`, `7B`), equals it."""
    number, unit = Decimal(printed[:-1]), _UNITS[printed[-1]]
    return (Decimal(count) / unit).quantize(number, rounding=ROUND_HALF_UP) == number


def parameter_table(
    methods: Sequence[str], model: str, llm: str | None = None, clip: str | None = None
) -> list[ParameterRow]:
    """Count the parameters of each method and of each of its ablations.

    Args:
        methods: registry names; `all` stands for every registered method.
        model: name of a preset, or folder or hub id of a Llama model.
        llm: folder or hub id of a language model that replaces the preset's; only its config is read.
        clip: `NAME[:WEIGHTS]` of a vision tower that replaces the preset's; only its sizes matter.

    Raises:
        UserError: the preset or model is unknown, or a method cannot be built at its size.
    """
    spec = cost_spec(model, llm, clip)
    pristine = meta_backbone(spec)
    rows: list[ParameterRow] = []
    for name in method_names(methods):
        for variant in (None, *getattr(get_method(name), "ablations", {})):
            plan = method_plan(name, spec, variant)
            counted = count_parameters(*attach_on_meta(plan, spec, OTHER_MODEL, pristine=pristine))
            rows.append(_row(name, variant, spec.name, counted))
    return rows


def _row(method: str, variant: str | None, model: str, counted: Parameters) -> ParameterRow:
    count = counted.paper_convention
    printed = {
        row.trainable
        for row in load_paper().rows
        if (row.method, row.variant, row.model) == (method, variant, model) and row.trainable
    }
    return {
        "method": method,
        "variant": variant,
        "model": model,
        "trainable": count,
        "trained": counted.trainable,
        "total": counted.total,
        "paper": printed_trainable(method, variant, model),
        "matches": all(matches_printed(count, number) for number in printed) if printed else None,
        "by_module": {name: module.model_dump() for name, module in counted.by_module.items()},
    }


def params_text(
    methods: Sequence[str],
    model: str,
    format: str = "markdown",
    *,
    llm: str | None = None,
    clip: str | None = None,
    width: int | None = None,
) -> str:
    """Return the counts of `parameter_table` as text, ending in a newline.

    Args:
        methods: as in `parameter_table`.
        model: as in `parameter_table`.
        format: `markdown` for the counts and then the breakdown by module, or `json` for a list of rows.
        llm: as in `parameter_table`.
        clip: as in `parameter_table`.
        width: columns of the terminal, for which `markdown` is rounded and fits; None gives all digits, for files and
            pipes.

    Raises:
        UserError: the format is unknown, or as in `parameter_table`.
    """
    as_json = is_json(format)
    rows = parameter_table(methods, model, llm, clip)
    if as_json:
        return json.dumps(rows, indent=2) + "\n"
    return _markdown(rows) if width is None else _shown(rows, width)


_VERDICT = {True: "yes", False: "NO", None: ""}
_SHORT = {"trained": "trained", "counted by the reference, unused": "unused"}
"""The status of a module in a record -> the same in a terminal."""


def _shown(rows: Sequence[ParameterRow], width: int) -> str:
    """Return the counts for a terminal: rounded, and the modules of a method below each other."""
    counts = [
        (_label(row), rounded(row["trainable"]), rounded(row["trained"]), row["paper"] or "", _VERDICT[row["matches"]])
        for row in rows
    ]
    modules = [
        (_label(row) if first else "", name, rounded(module["count"]), _SHORT[module["status"]])
        for row in rows
        for first, (name, module) in zip(
            [True, *[False] * len(row["by_module"])], row["by_module"].items(), strict=False
        )
    ]
    summary = shown_table(("method", "trainable", "trained", "paper", "matches"), counts, "lrrrl", width)
    parts = shown_table(("method", "module", "parameters", "status"), modules, "llrl", width)
    models = ", ".join(dict.fromkeys(row["model"] for row in rows))
    return (
        f"Trainable parameters on {models}, rounded; --format json has all digits\n\n{summary}\n"
        "trainable: as the paper counts; trained: those that receive gradients here\n\n"
        f"By module\n\n{parts}\nunused: the published code registers and counts it, but never uses it\n"
    )


def _markdown(rows: Sequence[ParameterRow]) -> str:
    counts = [
        (
            _label(row),
            row["model"],
            f"{row['trainable']:,}",
            f"{row['trained']:,}",
            row["paper"] or "n/a",
            _VERDICT[row["matches"]],
        )
        for row in rows
    ]
    modules = [
        (_label(row), name, f"{module['count']:,}", module["status"])
        for row in rows
        for name, module in row["by_module"].items()
    ]
    heads = ("method", "model", "trainable (paper's convention)", "trained here", "paper", "matches")
    summary = markdown_table(heads, counts, "llrrrl")
    parts = markdown_table(("method", "module", "parameters", "status"), modules, "llrl")
    return f"**Trainable parameters**\n\n{summary}\n\n**By module**\n\n{parts}\n"


def _label(row: ParameterRow) -> str:
    return row["method"] if row["variant"] is None else f"{row['method']}, {row['variant']}"
