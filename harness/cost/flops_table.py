"""The FLOPs of methods as rows and as text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from tabulate import tabulate

from harness.cost.flops import Phase, Workload, count_flops, total_flops
from harness.cost.meta import cost_spec, method_names, method_plan
from harness.errors import UserError
from harness.run.attach import attach_on_meta, meta_backbone
from methods import get_method
from methods.cost import Costed

_PHASES: tuple[Phase, ...] = ("train", "inference")


class FlopsRow(TypedDict):
    """FLOPs of one batch of one method: `by_module` maps a module to its forward and backward.

    `total` is None, and `by_module` empty, where the method does not say what it costs.
    """

    method: str
    model: str
    phase: Phase
    text_length: int
    visual_tokens: int
    batch: int
    total: int | None
    by_module: dict[str, dict[str, int]]


def flops_table(
    methods: Sequence[str],
    model: str,
    work: Workload | None = None,
    *,
    visual_tokens: int | None = None,
    llm: str | None = None,
    clip: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[FlopsRow]:
    """FLOPs of a batch, for each method a training step and an inference batch.

    Args:
        methods: registry names; `all` for every one.
        model: preset, or a folder or hub id of a Llama model.
        work: the batch; None: the paper's Table 2.
        visual_tokens: patches of an image in place of the vision tower's own.
        llm: id or folder in place of the preset's language model; only its config is read.
        clip: `NAME[:WEIGHTS]` in place of the preset's vision tower; only its sizes matter.
        settings: fields of methods' configs; a method that has no such field is left as it is.

    Raises:
        UserError: no such preset or model, a setting that no method has, or a method that cannot be built.
    """
    work = work or Workload()
    spec = cost_spec(model, llm, clip)
    names = method_names(methods)
    _check_settings(names, settings or {})
    pristine = meta_backbone(spec)
    rows: list[FlopsRow] = []
    for name in names:
        backbone, method = attach_on_meta(
            method_plan(name, spec, settings=settings), spec, num_patches=visual_tokens, pristine=pristine
        )
        for phase in _PHASES:
            counted = count_flops(backbone, method, phase, work) if isinstance(method, Costed) else {}
            rows.append(
                {
                    "method": name,
                    "model": spec.name,
                    "phase": phase,
                    "text_length": work.text_length,
                    "visual_tokens": backbone.vision.num_patches,
                    "batch": work.train_batch if phase == "train" else work.eval_batch,
                    "total": total_flops(counted) if counted else None,
                    "by_module": {
                        module: {"forward": flops.forward, "backward": flops.backward}
                        for module, flops in counted.items()
                    },
                }
            )
    return rows


def _check_settings(names: Sequence[str], settings: Mapping[str, Any]) -> None:
    known = {field for name in names for field in get_method(name).Config.model_fields}
    for field in settings:
        if field not in known:
            raise UserError(f"--set {field}: none of the methods has it; fields: {', '.join(sorted(known))}")


def flops_text(methods: Sequence[str], model: str, format: str = "markdown", **options: Any) -> str:
    """`flops_table` as text, ending in a newline.

    Args:
        format: markdown (totals, then by module, in 10⁹ FLOPs) or json (a list of rows, in FLOPs).
        options: as of `flops_table`.

    Raises:
        UserError: no such format; else as `flops_table`.
    """
    if format not in ("markdown", "json"):
        raise UserError(f"--format {format}: unknown; choose markdown or json")
    rows = flops_table(methods, model, **options)
    return json.dumps(rows, indent=2) + "\n" if format == "json" else _markdown(rows)


def _markdown(rows: Sequence[FlopsRow]) -> str:
    totals = [
        (
            row["method"],
            row["model"],
            row["phase"],
            row["batch"],
            row["text_length"],
            row["visual_tokens"],
            "n/a" if row["total"] is None else _giga(row["total"]),
        )
        for row in rows
    ]
    modules = [
        (row["method"], row["phase"], module, _giga(flops["forward"]), _giga(flops["backward"]))
        for row in rows
        for module, flops in row["by_module"].items()
    ]
    heads = ("method", "model", "phase", "batch", "text length", "visual tokens", "GFLOPs a batch")
    summary = tabulate(totals, heads, tablefmt="github", disable_numparse=True, colalign=["left"] * 3 + ["right"] * 4)
    parts = tabulate(
        modules,
        ("method", "phase", "module", "forward", "backward"),
        tablefmt="github",
        disable_numparse=True,
        colalign=["left"] * 3 + ["right"] * 2,
    )
    silent = sorted({row["method"] for row in rows if row["total"] is None})
    note = f"n/a: no formulas (methods/cost.py) for {', '.join(silent)}.\n\n" if silent else ""
    return f"**FLOPs of a batch**\n\n{summary}\n\n{note}**By module (GFLOPs)**\n\n{parts}\n"


def _giga(flops: int) -> str:
    return f"{flops / 1e9:,.3f}"
