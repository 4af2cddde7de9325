"""The subcommand `methods`: the registered methods and where they come from."""

import json
from typing import Any

from harness.config.lookup import named_method, registered_names
from harness.escape import text_table
from harness.terminal import paragraph


def methods_text(format: str, width: int | None = None) -> str:
    """Return name, title, summary, paper, address and ablations of every registered method.

    Args:
        format: `json`, or `markdown`.
        width: columns of the terminal, for which `markdown` is a block for each method; None for a table without the
            ablations, for files and pipes.

    Raises:
        UserError: a method cannot be imported, or two packages register the same name.
    """
    rows = []
    for name in registered_names():
        method = named_method(name)
        source = method.source
        rows.append(
            {
                "method": name,
                "title": method.title,
                "what": source.summary,
                "paper": source.paper,
                "url": source.url,
                "ablations": list(getattr(method, "ablations", {})),
            }
        )
    if format == "json":
        return json.dumps(rows, indent=2)
    if width is not None:
        return "\n".join(_block(row, width) for row in rows).rstrip("\n")
    body = [(r["method"], r["title"], r["what"], r["paper"], r["url"]) for r in rows]
    return text_table(body, ("Method", "Title", "What", "Paper", "URL"))


def _block(row: dict[str, Any], width: int) -> str:
    """Return what is known of one method, with the names that `--methods` and `--ablation` take."""
    ablations = ", ".join(row["ablations"])
    lines = [row["what"], row["paper"], row["url"], *([f"Ablations: {ablations}"] if ablations else [])]
    return paragraph(f"{row['method']}: {row['title']}", width) + "".join(paragraph(line, width, 4) for line in lines)
