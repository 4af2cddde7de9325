"""The subcommand `methods`: the registered methods and where they come from."""

import json

from tabulate import tabulate

from harness.config.lookup import named_method, registered_names


def methods_text(format: str) -> str:
    """Return name, title, summary, paper and address of every registered method.

    Args:
        format: `json`, or `markdown` for a table.

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
    return tabulate(
        [(r["method"], r["title"], r["what"], r["paper"], r["url"]) for r in rows],
        headers=("Method", "Title", "What", "Paper", "URL"),
        tablefmt="github",
    )
