"""The drawing of Figure 2.

matplotlib is an optional extra, so it is imported only when a figure is drawn. torch is not imported at all.
"""

import io
from collections.abc import Sequence
from pathlib import Path

from harness.cost.figure2 import Figure2Row
from harness.errors import UserError
from harness.files import write_atomic
from harness.report.paper import cost_figure

SUFFIXES = (".png", ".svg", ".pdf")
_NO_DATE: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Metadata by suffix that keep matplotlib from writing the date."""


def plot_figure2(rows: Sequence[Figure2Row], path: Path) -> Path:
    """Draw FLOPs by visual tokens, with one panel per text length, and write the file completely or not at all.

    Args:
        rows: the points, from `harness.cost.figure2.figure2`.
        path: the file to write; its suffix (.png, .svg or .pdf) decides the format.

    Returns:
        The path.

    Raises:
        UserError: the suffix is another one, or matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a figure cannot be written in this format; choose one of {', '.join(SUFFIXES)}")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('figures need matplotlib; run pip install -e ".[plots]" in the checkout') from error
    lengths = list(dict.fromkeys(row["text_length"] for row in rows))
    drawing = Figure(figsize=(3.2 * len(lengths), 3.0), layout="constrained")
    panels = drawing.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for panel, length in zip(panels, lengths, strict=True):
        for series in dict.fromkeys(row["series"] for row in rows):
            points = [row for row in rows if row["series"] == series and row["text_length"] == length]
            tokens = [row["visual_tokens"] for row in points]
            panel.plot(tokens, [row["flops"] / 1e12 for row in points], marker="o", markersize=3, label=series)
        panel.set_title(f"text length {length}", fontsize=9)
        panel.set_xlabel("visual tokens")
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("TFLOPs")
    panels[0].legend(fontsize=8)
    drawing.suptitle(cost_figure(2).title, fontsize=10)
    buffer = io.BytesIO()
    # The file contains no date and no random ids, so that the same data gives the same file.
    with rc_context({"svg.hashsalt": "figure"}):
        drawing.savefig(buffer, format=path.suffix[1:], dpi=150, metadata=_NO_DATE[path.suffix])
    write_atomic(path, buffer.getvalue())
    return path
