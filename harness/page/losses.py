"""Figures of training: the loss of every run that has a history."""

from collections.abc import Sequence
from itertools import groupby

from harness.page.figures import PageFigure, style
from harness.page.runs import Run


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
                "losses": run.record.spec_hash,
                "line": style(labels.index(run.record.label))["line"],
                "hovertemplate": f"seed {run.record.seed}, step %{{x}}: %{{y}}",
            }
            for run in own
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
                "Each line is one run: the mean loss of up to 500 parts of its training. A click on a name in the "
                "legend hides or shows its runs.",
                data,
                {"xaxis": {"title": {"text": "optimiser step"}}, "yaxis": {"title": {"text": "loss"}, "type": "log"}},
                ("Run", "Seed", "First loss", "Last loss", "Steps"),
                tuple(rows),
            )
        )
    return figures
