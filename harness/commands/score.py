"""The subcommands `score scienceqa` and `score coco`: how scores are printed."""

import json
from collections.abc import Mapping
from typing import Any

from tabulate import tabulate


def scores_text(scores: Mapping[str, Any], format: str) -> str:
    """Return scores as text, one row per column of the paper's table.

    Args:
        scores: column -> `value`, `n`, `stderr` and, where the value is missing, `reason`.
        format: `json`, or `markdown` for a table.
    """
    if format == "json":
        return json.dumps(scores, indent=2)
    rows = [
        (name, "n/a" if s["value"] is None else f"{s['value']:.2f}", s["n"], s["stderr"], s.get("reason") or "")
        for name, s in scores.items()
        if "value" in s  # `counts`, the n-gram counts behind BLEU, appears in JSON only
    ]
    return tabulate(rows, headers=("Column", "Value", "n", "Standard error", "Note"), tablefmt="github", floatfmt=".2f")
