"""The subcommand `methods`: the registered methods and where they come from."""

import json

from harness.config.lookup import named_method, registered_names
from harness.escape import text_table


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
    body = [(r["method"], r["title"], r["what"], r["paper"], r["url"]) for r in rows]
    return text_table(body, ("Method", "Title", "What", "Paper", "URL"))
