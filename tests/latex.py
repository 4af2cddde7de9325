"""Whether text is LaTeX that would compile, as far as a strict parser can tell. No TeX is needed."""

from collections.abc import Iterator
from typing import Any

from pylatexenc.latexwalker import (
    LatexCharsNode,
    LatexEnvironmentNode,
    LatexMacroNode,
    LatexSpecialsNode,
    LatexWalker,
)

SPECIAL = "_^#"
"""Characters that TeX refuses in text unless they are escaped. The parser itself refuses unbalanced braces and `$`."""


def check_latex(text: str) -> int:
    """Check that braces and environments are balanced, special characters are escaped, and rows of tables are full.

    Args:
        text: LaTeX.

    Returns:
        The number of rows of all its tables.

    Raises:
        AssertionError: a character is not escaped, or a row has not one cell for each column.
        LatexWalkerParseError: braces or environments are not balanced.
    """
    top, _, _ = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    count = 0
    for node in _all(top):
        if isinstance(node, LatexCharsNode):
            assert not set(SPECIAL) & set(node.chars), f"not escaped: {node.chars!r}"
        if isinstance(node, LatexEnvironmentNode) and node.environmentname == "tabular":
            columns = len(node.nodeargd.argnlist[-1].latex_verbatim().strip("{}"))
            rows = list(_rows(node.nodelist))
            assert rows and set(rows) == {columns}, f"cells of the rows: {rows}, columns: {columns}"
            count += len(rows)
    return count


def _rows(nodes: Any) -> Iterator[int]:
    """Yield the number of cells of each row of a table."""
    cells = 1
    for node in nodes:
        if isinstance(node, LatexSpecialsNode) and node.specials_chars == "&":
            cells += 1
        elif isinstance(node, LatexMacroNode) and node.macroname == "\\":
            yield cells
            cells = 1
    assert cells == 1, "the last row does not end"


def _all(nodes: Any) -> Iterator[Any]:
    for node in nodes or ():
        if node is not None:
            yield node
            yield from _all(getattr(node, "nodelist", None))
            if isinstance(node, LatexMacroNode) and node.macroname == "label":
                continue  # a name, not text
            yield from _all(getattr(node.nodeargd, "argnlist", None) if getattr(node, "nodeargd", None) else None)
