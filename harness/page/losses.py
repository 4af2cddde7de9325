"""Figures of training: the loss of every run that has a history."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean

from harness.page.figures import PageFigure, style
from harness.page.runs import Run

PARTS = 40
"""Number of points of a line where many runs stand in one figure: more of them hide each other."""


def coarse(losses: Mapping[str, Sequence[float]], parts: int = PARTS) -> dict[str, list[float]]:
    """Return losses as means over parts of the training, of about the same length.

    Args:
        losses: `x`, the step of each point, and `y`, its loss.
        parts: the largest number of points that is returned.

    Returns:
        `x`, the last step of each part, and `y`, the mean loss in it to four digits.
    """
    steps, values = losses["x"], losses["y"]
    ends = sorted({round(len(steps) * (part + 1) / parts) for part in range(parts)} - {0})
    spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    return {"x": [steps[span][-1] for span in spans], "y": [float(f"{fmean(values[span]):.4g}") for span in spans]}


def loss_figures(runs: Sequence[Run]) -> list[PageFigure]:
    """Return the loss curves of all runs with a history: one figure for each task and model."""
    with_history = sorted(
        (run for run in runs if run.losses), key=lambda run: (run.record.task, run.record.model, run.record.label)
    )
    figures = []
    for number, ((task, model), members) in enumerate(
        groupby(with_history, key=lambda run: (run.record.task, run.record.model))
    ):
        own = list(members)
        labels = list(dict.fromkeys(run.record.label for run in own))
        data = [
            {
                "type": "scatter",
                "mode": "lines",
                "name": run.record.label,
                "legendgroup": run.record.label,
                "showlegend": run is next(other for other in own if other.record.label == run.record.label),
                **coarse(losses),
                "line": style(labels.index(run.record.label))["line"],
                "hovertemplate": f"seed {run.record.seed}, step %{{x}}: %{{y}}",
            }
            for run in own
            if (losses := run.losses)
        ]
        rows = [
            (run.record.label, str(run.record.seed), f"{loss['y'][0]:.4g}", f"{loss['y'][-1]:.4g}", str(loss["x"][-1]))
            for run in own
            if (loss := run.losses)
        ]
        figures.append(
            PageFigure(
                f"loss-{number}",
                f"Training loss: {task} on {model}",
                f"Each line is one run: the mean loss in each of up to {PARTS} parts of its training. A click on a "
                "name in the legend hides or shows its runs. The record of a run has its curve in more detail.",
                data,
                {
                    "xaxis": {"title": {"text": "optimiser step"}},
                    "yaxis": {"title": {"text": "loss"}, "type": "log", "dtick": "D2", "tickformat": "~g"},
                },
                ("Run", "Seed", "First loss", "Last loss", "Steps"),
                tuple(rows),
            )
        )
    return figures
