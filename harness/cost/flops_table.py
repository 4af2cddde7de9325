"""The FLOPs of several methods, as rows and as text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from harness.cost.flops import Phase, Workload, count_flops, total_flops
from harness.cost.meta import cost_spec, method_names, method_plan
from harness.cost.output import is_json, markdown_table, rounded, shown_table
from harness.errors import UserError
from harness.run.attach import attach_on_meta, meta_backbone
from harness.terminal import paragraph
from methods import get_method
from methods.cost import Costed

_PHASES: tuple[Phase, ...] = ("train", "inference")


class FlopsRow(TypedDict):
    """FLOPs of one batch of one method in one phase.

    `by_module` maps each module to the FLOPs of its forward and backward pass. If the method does not count its FLOPs,
    `total` is None and `by_module` is empty.
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
    """Return two rows per method: the FLOPs of a training step and those of an inference batch.

    Args:
        methods: registry names; `all` stands for every registered method.
        model: name of a preset, or folder or hub id of a Llama model.
        work: the sizes of the batches; None takes those of the paper's Table 2.
        visual_tokens: patches per image; None takes those of the vision tower.
        llm: folder or hub id of a language model that replaces the preset's; only its config is read.
        clip: `NAME[:WEIGHTS]` of a vision tower that replaces the preset's; only its sizes matter.
        settings: fields of the methods' configs; a method ignores fields that it does not have.

    Raises:
        UserError: the preset or model is unknown, a setting is a field of no method, or a method cannot be built.
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
    """Raise a UserError if a setting is a field of none of the methods."""
    known = {field for name in names for field in get_method(name).Config.model_fields}
    for field in settings:
        if field not in known:
            raise UserError(f"--set {field}: not a field of these methods; choose one of {', '.join(sorted(known))}")


def flops_text(
    methods: Sequence[str], model: str, format: str = "markdown", *, width: int | None = None, **options: Any
) -> str:
    """Return the FLOPs of `flops_table` as text, ending in a newline.

    Args:
        methods: as in `flops_table`.
        model: as in `flops_table`.
        format: `markdown` for the totals and then the modules, in 10⁹ FLOPs; `json` for a list of rows, in FLOPs.
        width: columns of the terminal, for which `markdown` is rounded and fits; None gives all digits, for files and
            pipes.
        options: the other arguments of `flops_table`.

    Raises:
        UserError: the format is unknown, or as in `flops_table`.
    """
    as_json = is_json(format)
    rows = flops_table(methods, model, **options)
    if as_json:
        return json.dumps(rows, indent=2) + "\n"
    return _markdown(rows) if width is None else _shown(rows, width)


def _shown(rows: Sequence[FlopsRow], width: int) -> str:
    """Return the FLOPs for a terminal: rounded, both phases of a method in one line."""
    by_method: dict[str, dict[Phase, FlopsRow]] = {}
    for row in rows:
        by_method.setdefault(row["method"], {})[row["phase"]] = row
    totals = [
        (name, *("n/a" if (total := phases[phase]["total"]) is None else rounded(total) for phase in _PHASES))
        for name, phases in by_method.items()
    ]
    modules = [
        (name, module, *(rounded(sum(phases[phase]["by_module"].get(module, {}).values())) for phase in _PHASES))
        for name, phases in by_method.items()
        for module in dict.fromkeys(module for row in phases.values() for module in row["by_module"])
    ]
    first = {row["phase"]: row for row in reversed(rows)}
    sizes = ", ".join(f"{first[phase]['batch']} in {phase}" for phase in _PHASES)
    about = (
        f"FLOPs per batch on {rows[0]['model']}: {rows[0]['text_length']} text tokens, {rows[0]['visual_tokens']} "
        f"visual tokens, batch {sizes}. Rounded; --format json has all digits and both passes."
    )
    return (
        f"{paragraph(about, width)}\n{shown_table(('method', *_PHASES), totals, 'lrr', width)}\n"
        f"By module, forward and backward\n\n{shown_table(('method', 'module', *_PHASES), modules, 'llrr', width)}"
        f"{_uncounted(rows)}"
    )


def _uncounted(rows: Sequence[FlopsRow]) -> str:
    """Return which methods do not count their FLOPs; empty if all do."""
    names = sorted({row["method"] for row in rows if row["total"] is None})
    return f"\nn/a: FLOPs not counted (see methods/cost.py) by {', '.join(names)}.\n" if names else ""


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
    summary = markdown_table(heads, totals, "lllrrrr")
    parts = markdown_table(("method", "phase", "module", "forward", "backward"), modules, "lllrr")
    note = f"{uncounted.lstrip()}\n" if (uncounted := _uncounted(rows)) else ""
    return f"**FLOPs per batch**\n\n{summary}\n\n{note}**By module (GFLOPs)**\n\n{parts}\n"


def _giga(flops: int) -> str:
    """Return FLOPs as text, in 10⁹."""
    return f"{flops / 1e9:,.3f}"
