"""Trainable counts of every method and ablation, beside the paper's; instantiated on the meta device."""

import json
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, TypedDict

from tabulate import tabulate

from harness.cost.meta import cost_spec, method_names, method_plan
from harness.errors import UserError
from harness.records import Parameters
from harness.report.paper import load_paper, printed_trainable
from harness.run.attach import attach_on_meta, meta_backbone
from harness.run.parameters import count_parameters
from methods import get_method

_UNITS = {"M": 10**6, "B": 10**9}


OTHER_MODEL = "give another --model, or leave the method out"
"""What to do about a method that cannot be built at a model's size."""


class ParameterRow(TypedDict):
    """One method or ablation at one model.

    `trainable` follows the paper's convention (parameters that the reference code counts and never trains
    included), `trained` is what receives gradients here; `paper` is the printed figure, null where there is none.
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
    """Whether `count` reads as `printed` (`4.17M`, `7B`) at the printed precision, halves rounded up."""
    number, unit = Decimal(printed[:-1]), _UNITS[printed[-1]]
    return (Decimal(count) / unit).quantize(number, rounding=ROUND_HALF_UP) == number


def parameter_table(
    methods: Sequence[str], model: str, llm: str | None = None, clip: str | None = None
) -> list[ParameterRow]:
    """Counts of each method and of each of its ablations, on the meta device.

    Args:
        methods: registry names; `all` for every one.
        model: preset, or a folder or hub id of a Llama model.
        llm: id or folder in place of the preset's language model; only its config is read.
        clip: `NAME[:WEIGHTS]` in place of the preset's vision tower; only its sizes matter.

    Raises:
        UserError: no such preset or model, or a method that cannot be built at this size.
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
    prints = {
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
        "matches": all(matches_printed(count, printed) for printed in prints) if prints else None,
        "by_module": {name: module.model_dump() for name, module in counted.by_module.items()},
    }


def params_text(
    methods: Sequence[str], model: str, format: str = "markdown", *, llm: str | None = None, clip: str | None = None
) -> str:
    """`parameter_table` as text, ending in a newline.

    Args:
        format: markdown (counts, then the breakdown by module) or json (a list of rows).

    Raises:
        UserError: no such format; else as `parameter_table`.
    """
    if format not in ("markdown", "json"):
        raise UserError(f"--format {format}: unknown; choose markdown or json")
    rows = parameter_table(methods, model, llm, clip)
    return json.dumps(rows, indent=2) + "\n" if format == "json" else _markdown(rows)


def _markdown(rows: Sequence[ParameterRow]) -> str:
    verdict = {True: "yes", False: "NO", None: ""}
    counts = [
        (
            _label(row),
            row["model"],
            f"{row['trainable']:,}",
            f"{row['trained']:,}",
            row["paper"] or "n/a",
            verdict[row["matches"]],
        )
        for row in rows
    ]
    modules = [
        (_label(row), name, f"{module['count']:,}", module["status"])
        for row in rows
        for name, module in row["by_module"].items()
    ]
    right = ("left", "left", "right", "right", "right", "left")
    headers = ("method", "model", "trainable (paper's convention)", "trained here", "paper", "matches")
    summary = tabulate(counts, headers, tablefmt="github", colalign=right, disable_numparse=True)
    parts = tabulate(
        modules,
        ("method", "module", "parameters", "status"),
        tablefmt="github",
        colalign=("left", "left", "right", "left"),
        disable_numparse=True,
    )
    return f"**Trainable parameters**\n\n{summary}\n\n**By module**\n\n{parts}\n"


def _label(row: ParameterRow) -> str:
    return row["method"] if row["variant"] is None else f"{row['method']}, {row['variant']}"
