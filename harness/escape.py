"""Text from outside, made safe for the place where it is printed: one function for each kind of output.

Such text is a name of a model, folder, method or processor, a question, a caption, or an error of a library. JSON needs
no function here: it is kept exactly.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from html import escape as _html_entities
from typing import Any

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_LONGEST_WORD = 300
_LONGEST_MESSAGE = 2_000
LONGEST_NAME = 100
"""No name that becomes a part of a path has more characters. Two of them fit into the 255 bytes of a file name."""
_FORMULA_STARTS = ("=", "+", "-", "@")


def visible(text: str) -> str:
    r"""Return text in which nothing can act on a terminal, end a line or break UTF-8.

    Control characters, line breaks, marks that reverse the direction of text, and lone surrogates become escapes such
    as `\x1b`. Everything else stays as it is.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def visible_lines(text: str) -> str:
    """Return text as `visible` does, but keep its line breaks."""
    return "\n".join(visible(line) for line in text.split("\n"))


def is_visible(value: Any) -> bool:
    """Return whether all text in a JSON value, names of fields included, is as `visible` would return it."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, str):
            if visible(part) != part:
                return False
        elif isinstance(part, Mapping):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, Sequence):
            left += part
    return True


def path_part(name: str) -> str:
    """Return a name as one part of a path: letters, digits and `_.+-` alone, and no more than `LONGEST_NAME` of them.

    A longer name is cut, and ends in a hash of the whole one.
    """
    part = re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip(".-") or "unnamed"
    if len(part) <= LONGEST_NAME:
        return part
    return f"{part[: LONGEST_NAME - 17]}-{sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"


def toml(text: str) -> str:
    """Return a document in TOML that means the same, in which nothing can act on a terminal.

    In a comment, an escape is as good as its character. Elsewhere outside strings TOML allows none of these characters
    but line breaks and tabs, and `tomli_w` writes no tab there and no string of several lines.
    """
    lines = text.split("\n")
    return "\n".join(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04X}", line) for line in lines)


def message(text: str) -> str:
    """Return text as one line of bounded length for an error message: words and text are cut in their middle."""
    words = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda found: _cut(found[0], _LONGEST_WORD), visible(text))
    return _cut(words, _LONGEST_MESSAGE)


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}…({len(text):,} characters)…{text[-longest // 4 :]}"


def markdown(text: str) -> str:
    """Return text for one line or cell of Markdown: it starts no tag, link, image, heading, line or cell."""
    text = visible(text).replace("|", "&#124;").replace("](", "]&#40;")
    return re.sub(r"^(\s*)#", r"\1&#35;", re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text))


def latex_comment(text: str) -> str:
    """Return text as a comment of LaTeX, which no line break can end."""
    return f"% {visible(text)}"


_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_PRINTED = str.maketrans({"|": r"\textbar{}", "±": r"$\pm$"})
"""Characters that are not special in LaTeX, but that its standard font lacks."""
_NO_LETTER = re.compile("[«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ]|[^\x20-ž‐-―‘’“”†‡•…‰€™←↑→↓ȘșȚț]")
"""What pdflatex, without packages for other scripts, ends with an error at."""


def _letters(text: str) -> str:
    """Return visible text in which the characters that pdflatex does not know are their numbers, such as `U+03BC`."""
    return _NO_LETTER.sub(lambda found: f"U+{ord(found[0]):04X}", visible(text))


def latex(text: str) -> str:
    """Return text for LaTeX, in which nothing is a command."""
    escaped = "".join(_LATEX.get(character, character) for character in _letters(text))
    return escaped.translate(_PRINTED)


def csv_cell(value: Any) -> Any:
    """Return a value for a cell of CSV. Text that a spreadsheet would compute as a formula gets an apostrophe."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def html(text: str) -> str:
    """Return text for HTML, in which it contains no tag and no entity."""
    return _html_entities(visible(text))


# tabulate itself escapes the special characters of LaTeX and of HTML.
_CELL: Mapping[str, Callable[[str], str]] = {"github": markdown, "latex_booktabs": _letters, "html": visible}


def text_table(
    rows: Sequence[Sequence[object]], heads: Sequence[str], sides: Sequence[str] | None = None, style: str = "github"
) -> str:
    """Return a table whose cells are printed as text, each made safe for the style.

    Args:
        rows: one cell per column; a cell that is no text is printed by `str`.
        heads: one heading per column.
        sides: `left` or `right` for each column; None aligns all columns to the left.
        style: `github`, `latex_booktabs` or `html`, as tabulate calls them.
    """
    from tabulate import tabulate

    safe = _CELL[style]
    body = [[safe(str(cell)) for cell in row] for row in rows]
    # tabulate refuses alignments for a table without rows.
    aligned = tuple(sides) if sides and body else None
    text = str(tabulate(body, [safe(head) for head in heads], tablefmt=style, disable_numparse=True, colalign=aligned))
    return text.translate(_PRINTED) if style == "latex_booktabs" else text
