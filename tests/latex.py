"""Whether text is LaTeX that compiles, by a strict parser, which needs no TeX, and by pdflatex where there is one."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
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
        if isinstance(node, LatexEnvironmentNode) and node.environmentname in ("tabular", "longtable"):
            # The parser does not know that longtable has an argument.
            given = node.nodeargd.argnlist[-1] if node.nodeargd.argnlist else node.nodelist[0]
            columns = len(given.latex_verbatim().strip("{}"))
            rows = list(_rows(dropwhile(lambda node: getattr(node, "macroname", "") != "toprule", node.nodelist)))
            assert rows and set(rows) == {columns}, f"cells of the rows: {rows}, columns: {columns}"
            count += len(rows)
    return count


def compile_latex(text: str, folder: Path, *, strict: bool = True) -> None:
    """Compile LaTeX as part of an article; skip the test where pdflatex is not installed.

    Args:
        text: a table, with a comment that says which packages it needs; or other text.
        folder: an empty folder to work in.
        strict: whether to refuse lines that are too wide, undefined references, and other warnings.
    """
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")
    needs = re.search(r"^% needs: (.*)$", text, flags=re.MULTILINE)
    labels = "".join(rf"See \ref{{{label}}}." for label in re.findall(r"\\label\{(.*?)\}", text))
    body = f"{needs[1] if needs else ''}\n\\begin{{document}}\n{labels}\n{text}\n\\end{{document}}\n"
    (folder / "article.tex").write_text(f"\\documentclass{{article}}{body}", encoding="utf-8")
    for _ in range(2):  # the second pass knows the labels
        command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "article.tex"]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    log = (folder / "article.log").read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^(?:Overfull|Missing character|.*Warning).*", log, flags=re.MULTILINE)
    assert not (strict and found), found


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
