"""The drawing of Figure 2 for print."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.cost.figure2 import Figure2Row
from harness.report.drawing import check_suffix, new_drawing, save_drawing
from harness.report.paper import cost_figure


def draw_figure2(rows: Sequence[Figure2Row]) -> Any:
    """Return a matplotlib figure of FLOPs by visual tokens, with one panel per text length.

    Args:
        rows: the points, from `harness.cost.figure2.figure2`.

    Raises:
        UserError: matplotlib is not installed.
    """
    drawing = new_drawing(12.8, 3.0)
    lengths = list(dict.fromkeys(row["text_length"] for row in rows))
    panels = drawing.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for panel, length in zip(panels, lengths, strict=True):
        for series in dict.fromkeys(row["series"] for row in rows):
            points = [row for row in rows if row["series"] == series and row["text_length"] == length]
            tokens = [row["visual_tokens"] for row in points]
            panel.plot(tokens, [row["flops"] / 1e12 for row in points], marker="o", markersize=3, label=series)
        panel.set_title(f"text length {length}", fontsize=9)
        panel.set_xlabel("visual tokens")
    # Setting a limit ends the automatic scaling of all panels, so it comes after all points.
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("TFLOPs")
    panels[0].legend(fontsize=8)
    drawing.suptitle(cost_figure(2).title, fontsize=10)
    return drawing


def plot_figure2(rows: Sequence[Figure2Row], path: Path) -> Path:
    """Draw Figure 2 into a file, completely or not at all, and return its path.

    Args:
        rows: as in `draw_figure2`.
        path: the file to write; its suffix (.png, .svg or .pdf) decides the format.

    Raises:
        UserError: the suffix is another one, or matplotlib is not installed.
    """
    check_suffix(path)
    return save_drawing(draw_figure2(rows), path)
