"""Trainable counts of every method and ablation, beside the paper's; instantiated on the meta device."""

import json
from collections import Counter
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, TypedDict

from tabulate import tabulate
from torch import nn

from harness.backbone.loader import Backbone
from harness.cost.meta import attach_on_meta, cost_spec, meta_backbone, method_names
from harness.errors import UserError
from harness.records import ModuleCount, Parameters
from harness.report.paper import load_paper, printed_trainable
from methods import get_method
from methods.base import adapter_parameters

_UNITS = {"M": 10**6, "B": 10**9}
_MODULE_DEPTH = 2


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


def count_parameters(backbone: Backbone, method: Any) -> Parameters:
    """The `parameters` section of a record, on any device.

    Args:
        backbone: the backbone that `method` is attached to.
        method: the method; its own parameters are what is trained.

    Returns:
        Counts under both conventions, and by module (see `module_of`).

    Raises:
        UserError: `reference_only` names a module that is trained.
    """
    own = adapter_parameters(method)
    trained = Counter[str]()
    for name, parameter in own.items():
        trained[module_of(name)] += parameter.numel()
    unused = method.reference_only()
    if both := sorted(trained.keys() & unused.keys()):
        raise UserError(
            f"method {method.name}: reference_only() names {both[0]}, which is trained; name what is not created"
        )
    by_module = {name: ModuleCount(count=count, status="trained") for name, count in trained.items()}
    by_module |= {
        name: ModuleCount(count=count, status="counted by the reference, unused") for name, count in unused.items()
    }
    return Parameters(
        trainable=trained.total(),
        paper_convention=trained.total() + sum(unused.values()),
        total=_total([*backbone.modules(), method]),
        by_module=by_module,
    )


def module_of(parameter: str) -> str:
    """The module a parameter is counted under: its path up to the first number, two names deep at most.

    `vision_adapters.3.down.weight` -> `vision_adapters`; `memory.projector.down.bias` -> `memory.projector`;
    a parameter that no module holds is its own.
    """
    path = parameter.split(".")[:-1] or [parameter]
    names: list[str] = []
    for part in path[:_MODULE_DEPTH]:
        if part.isdigit():
            break
        names.append(part)
    return ".".join(names) or parameter


def _total(modules: Sequence[nn.Module]) -> int:
    """Parameters of all the modules, each once: an attached method also hangs in the backbone."""
    return sum(p.numel() for p in {id(p): p for module in modules for p in module.parameters()}.values())


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
            counted = count_parameters(*attach_on_meta(name, spec, variant, pristine=pristine))
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
