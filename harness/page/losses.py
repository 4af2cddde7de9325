"""Figures of training: the losses of the runs that have a history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import fmean
from typing import Any

from harness.page.figures import PageFigure, styles
from harness.page.runs import Run

PARTS = 40
"""Number of points of a line where many methods stand in one figure: more of them hide each other."""


def coarse(losses: Mapping[str, Sequence[float]], parts: int = PARTS) -> dict[str, list[float]]:
    """Return losses as means over parts of the training, of about the same length.

    Args:
        losses: `x`, the last step of each point, and `y`, its mean loss over the steps since the point before it.
        parts: the largest number of points that is returned.

    Returns:
        `x`, the last step of each part, and `y`, the mean loss in it to four digits.
    """
    steps, values = losses["x"], losses["y"]
    ends = sorted({round(len(steps) * (part + 1) / parts) for part in range(parts)} - {0})
    spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    covered = [step - before for before, step in pairwise([0, *steps])]
    means = [fmean(values[span], covered[span]) for span in spans]
    return {"x": [steps[span][-1] for span in spans], "y": [_rounded(mean) for mean in means]}


def loss_figures(runs: Sequence[Run], names: Mapping[str, str]) -> list[PageFigure]:
    """Return the loss curves of all runs with a history: one figure for each task, model and protocol.

    The runs of a method differ by their seeds, so its line is their mean. Runs of another length have another line.

    Args:
        runs: the runs.
        names: spec hash of a run -> name of its row in the tables; other runs have their label.
    """
    curves = [
        _Curve(run, names.get(run.record.spec_hash, run.record.label), coarse(losses))
        for run in runs
        if (losses := run.losses)
    ]
    looks = styles([*names.values(), *sorted(curve.name for curve in curves)])
    order = list(looks)
    curves.sort(key=lambda curve: (curve.place, order.index(curve.name), curve.line, curve.run.record.seed))
    grouped = groupby(curves, key=lambda curve: curve.place)
    return [_loss_figure(number, place, list(own), looks) for number, (place, own) in enumerate(grouped)]


@dataclass(frozen=True)
class _Curve:
    """The losses of one run, with the name of its method."""

    run: Run
    name: str
    coarse: Mapping[str, list[float]]

    @property
    def line(self) -> tuple[str, list[float], str, str, str]:
        """What runs share whose losses are averaged: all but the seed."""
        run = self.run.record
        weights = run.backbone.weight_hash or ""
        return self.name, self.coarse["x"], run.config_hash, run.data.data_hash or "", weights

    @property
    def place(self) -> tuple[str, str, str]:
        """The task, model and protocol."""
        return self.run.record.task, self.run.record.model, self.run.protocol


def _loss_figure(
    number: int, place: tuple[str, str, str], curves: Sequence[_Curve], looks: Mapping[str, dict[str, Any]]
) -> PageFigure:
    task, model, asked = place
    data: list[dict[str, Any]] = []
    for (name, steps, *_), members in groupby(curves, key=lambda curve: curve.line):
        own = list(members)
        seeds = f"{len(own)} seed{'' if len(own) == 1 else 's'}"
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "legendgroup": name,
                "showlegend": name not in {trace["name"] for trace in data},
                "x": steps,
                "y": [_rounded(fmean(values)) for values in zip(*(curve.coarse["y"] for curve in own), strict=True)],
                "line": looks[name]["line"],
                "hovertemplate": f"{seeds}, step %{{x}}: %{{y}}",
            }
        )
    rows = [
        (curve.name, str(curve.run.record.seed), f"{loss['y'][0]:.4g}", f"{loss['y'][-1]:.4g}", str(loss["x"][-1]))
        for curve in curves
        if (loss := curve.run.losses)
    ]
    return PageFigure(
        f"loss-{number}",
        f"Training loss: {task} on {model}, protocol {asked}",
        f"Each line is one method: the mean over its seeds of the loss in each of up to {PARTS} parts of the training. "
        "A click on a name in the legend hides or shows its line. The record of a run has its own curve in more "
        "detail.",
        data,
        {
            "xaxis": {"title": {"text": "optimiser step"}},
            "yaxis": {"title": {"text": "loss"}, "type": "log", "dtick": "D2", "tickformat": "~g"},
        },
        ("Method", "Seed", "First loss", "Last loss", "Steps"),
        tuple(rows),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
