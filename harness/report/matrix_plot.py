"""The drawing of a matrix that a method shows of its inside, for print."""

from pathlib import Path
from typing import Any

from harness.records import DiagnosticMatrix
from harness.report.drawing import check_suffix, drawn, new_drawing, save_drawing

_MOST_LABELS = 16
"""Labels of an axis that fit beside each other."""


def draw_matrix(matrix: DiagnosticMatrix, subtitle: str) -> Any:
    """Return a matplotlib figure of the means of a matrix, as a heat map.

    Args:
        matrix: the matrix.
        subtitle: what was measured, such as method, task, model and number of images.

    Raises:
        UserError: matplotlib is not installed.
    """
    drawing = new_drawing(6.4, 4.0)
    panel = drawing.subplots()
    # Cividis looks the same to people with any colour blindness.
    image = panel.imshow(matrix.mean, cmap="cividis", aspect="auto", vmin=0)
    for axis, labels in ((panel.xaxis, matrix.column_labels), (panel.yaxis, matrix.row_labels)):
        places = range(0, len(labels), -(-len(labels) // _MOST_LABELS))
        axis.set_ticks(list(places), [drawn(labels[place]) for place in places], fontsize=7)
    panel.set_xlabel(drawn(matrix.columns))
    panel.set_ylabel(drawn(matrix.rows))
    panel.set_title(drawn(subtitle), fontsize=8)
    drawing.colorbar(image, ax=panel, label="share")
    drawing.suptitle(drawn(matrix.title), fontsize=10)
    return drawing


def plot_matrix(matrix: DiagnosticMatrix, subtitle: str, path: Path) -> Path:
    """Draw a matrix into a file, completely or not at all, and return its path.

    Args:
        matrix, subtitle: as in `draw_matrix`.
        path: the file to write; its suffix (.png, .svg or .pdf) decides the format.

    Raises:
        UserError: the suffix is another one, or matplotlib is not installed.
    """
    check_suffix(path)
    return save_drawing(draw_matrix(matrix, subtitle), path)
