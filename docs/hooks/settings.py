"""The settings of a method or a recipe stand in a page as a table: name, default and description.

A page asks for it with the line `<!-- settings: PACKAGE.MODULE.CLASS -->`. The class is read, not imported, so nothing
heavy is loaded. MkDocs calls the function `on_...`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ASKED = re.compile(r"^<!-- settings: ([\w.]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the tables in the places of a page that ask for them."""
    root = Path(config.config_file_path).parent
    return _ASKED.sub(lambda match: table(match[1], root), markdown)


def table(path: str, root: Path) -> str:
    """Return the fields of a class with their defaults and descriptions, as Markdown.

    Args:
        path: the class, such as `methods.memory.MemoryConfig`.
        root: folder that holds the package.

    Raises:
        ValueError: there is no such class, or it declares no field.
    """
    module, _, name = path.rpartition(".")
    source = root.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name]
    rows = [row for node in classes for row in _fields(node)]
    if not rows:
        raise ValueError(f"{path}: is no class with fields; correct the line that asks for its settings")
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        call = item.value if isinstance(item, ast.AnnAssign) else None
        if isinstance(item, ast.AnnAssign) and isinstance(call, ast.Call) and ast.unparse(call.func) == "Field":
            # A default that is computed from other settings is explained in the description.
            default = f"`{ast.unparse(call.args[0])}`" if call.args else "see right"
            meaning = {word.arg: word.value for word in call.keywords}["description"]
            yield f"| `{ast.unparse(item.target)}` | {_cell(default)} | {_cell(ast.literal_eval(meaning))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
