"""Figures of scores against what they cost: trainable parameters, time of a training step, and memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.page.boards import full_name, row_names, scored
from harness.page.figures import GREY, PageFigure, styles
from harness.records import Record, remarks_about
from harness.report.rows import TableRow
from harness.report.selection import hardware
from harness.tasks.facts import TASKS


@dataclass(frozen=True)
class _Axis:
    """A cost that scores are drawn against: its title, its value in a record, and whether its axis is logarithmic."""

    name: str
    title: str
    log: bool

    def of(self, record: Record) -> float | None:
        match self.name:
            case "parameters":
                # As in the tables, which the figures stand below.
                return record.parameters.paper_convention if record.parameters else None
            case "step":
                return record.times_s.train_step_median
            case _:
                # That of a CPU process differs more between sessions than between methods.
                peak = record.peak_memory_bytes.cuda_allocated
                return None if peak is None else peak / 1e6


_CAPTION = (
    "Each point is the mean over the seeds of one method, with its sample standard deviation. No method on the dotted "
    "line is beaten by another in both."
)
_AXES = (
    _Axis("parameters", "trainable parameters", True),
    _Axis("step", "seconds per training step", False),
    _Axis("memory", "peak memory, MB", False),
)


def pareto(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, score) that no other point beats, by growing cost.

    A point is beaten by one that costs no more and scores no less, and differs from it.
    """
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def score_figures(records: Sequence[Record], results_dir: Path) -> list[PageFigure]:
    """Return scores of trained methods against parameters, step time and memory.

    There is one figure for each of these, and for each task, model, protocol and device; none for memory on a CPU.

    Args:
        records: the records.
        results_dir: their folder, for the remarks.

    Raises:
        UserError: the remarks have an error.
    """
    trained = [(task, group) for task, group in scored(records) if group.runs[0].kind == "train"]
    looks = styles(row_names(records).values())
    placed = sorted(((_place(task, group.runs[0]), group) for task, group in trained), key=lambda pair: pair[0])
    figures = []
    for number, (place, members) in enumerate(groupby(placed, key=lambda pair: pair[0])):
        groups = [group for _, group in members]
        remarks = remarks_about((run for group in groups for run in group.runs), results_dir)
        figures += [found for axis in _AXES if (found := _score_figure(number, place, groups, axis, looks, remarks))]
    return figures


def _place(task: str, run: Record) -> tuple[str, str, str, str]:
    return task, run.model, run.protocol, hardware(run)


def _score_figure(
    number: int,
    place: tuple[str, str, str, str],
    groups: Sequence[TableRow],
    axis: _Axis,
    looks: Mapping[str, dict[str, Any]],
    remarks: Sequence[str],
) -> PageFigure | None:
    task, model, asked, device = place
    metric = TASKS[task].summary
    data: list[dict[str, Any]] = []
    rows, points = [], []
    for group in groups:
        cell = group.metrics[metric]
        timed = [run for run in group.runs if hardware(run) == device]
        values = [value for run in timed if (value := axis.of(run)) is not None]
        if cell.value is None or not values:
            continue
        cost = fmean(values)
        points.append((cost, cell.value))
        rows.append((full_name(group), f"{cost:,.4g}" if cost < 1000 else f"{cost:,.0f}", f"{cell.value:.2f}"))
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": full_name(group),
                "x": [cost],
                "y": [cell.value],
                **({} if cell.std is None else {"error_y": {"type": "data", "array": [cell.std]}}),
                "marker": looks[full_name(group)]["marker"],
            }
        )
    if not points:
        return None
    front = pareto(points)
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [cost for cost, _ in front],
            "y": [score for _, score in front],
            "line": {"color": GREY, "dash": "dot", "shape": "hv"},
            "hoverinfo": "skip",
        }
    )
    scale = {"type": "log", "dtick": "D2", "tickformat": "~s"} if axis.log else {"type": "linear"}
    layout = {
        "xaxis": {"title": {"text": axis.title}, **scale},
        "yaxis": {"title": {"text": metric}},
    }
    where = f"{task} on {model}, protocol {asked}, {device}"
    return PageFigure(
        f"score-{number}-{axis.name}",
        f"{metric} against {axis.title}: {where}",
        " ".join([_CAPTION, *remarks]),
        data,
        layout,
        ("Method", axis.title, metric),
        tuple(rows),
    )
