"""Figures for print as files. matplotlib is an optional extra, so it is imported only when a figure is drawn."""

import io
import warnings
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.escape import visible
from harness.files import write_atomic

SUFFIXES = (".png", ".svg", ".pdf")
_LONGEST = 120
"""Most characters of a text: matplotlib takes minutes for very long ones."""
_NO_DATE: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Metadata by suffix that keep matplotlib from writing the date."""


def check_suffix(path: Path) -> None:
    """Check that a figure can be written into a file of this name.

    Raises:
        UserError: its suffix is not .png, .svg or .pdf.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a figure cannot be written in this format; choose one of {', '.join(SUFFIXES)}")


def drawn(text: str) -> str:
    """Return text for a figure: of bounded length, and in which no dollar begins a formula."""
    shown = visible(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")
    return shown.replace("$", r"\$")


def new_drawing(width: float, height: float) -> Any:
    """Return an empty matplotlib figure.

    Args:
        width, height: its size in inches.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('figures need matplotlib; run pip install -e ".[plots]" in the checkout') from error
    return Figure(figsize=(width, height), layout="constrained")


def save_drawing(drawing: Any, path: Path) -> Path:
    """Write a figure, atomically, and return the path. The same figure gives the same file.

    Args:
        drawing: a matplotlib figure.
        path: the file; its suffix decides the format.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # The file contains no date and no random ids.
    with rc_context({"svg.hashsalt": "figure"}), warnings.catch_warnings():
        # Labels may have letters that the font lacks, which are drawn as boxes, or leave no room for the drawing.
        warnings.simplefilter("ignore")
        drawing.savefig(buffer, format=path.suffix[1:], dpi=150, metadata=_NO_DATE[path.suffix])
    write_atomic(path, buffer.getvalue())
    return path
