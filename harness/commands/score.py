"""The subcommands `score scienceqa` and `score coco`: how scores are printed."""

import json
from collections.abc import Mapping
from typing import Any

from harness.escape import text_table


def scores_text(scores: Mapping[str, Any], format: str) -> str:
    """Return scores as text, one row per column of the paper's table.

    Args:
        scores: column -> `value`, `n`, `stderr` and, where they apply, `reason` of a missing value and `failures`, the
            number of answers that could not be read.
        format: `json`, or `markdown` for a table.
    """
    if format == "json":
        return json.dumps(scores, indent=2)
    rows = [
        (name, _number(s["value"]) or "n/a", s["n"], _number(s["stderr"]), s.get("reason") or "")
        for name, s in scores.items()
        if "value" in s  # `counts`, the n-gram counts behind BLEU, appears in JSON only
    ]
    heads = ("Column", "Value", "n", "Standard error", "Note")
    table = text_table(rows, heads, ("left", "right", "right", "right", "left"))
    total = scores.get("Avg", {})
    if unread := total.get("failures"):
        table += f"\n\nAnswers that could not be read: {unread} of {total['n']}. They count as wrong."
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
