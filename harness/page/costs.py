"""What the page shows of cost: measured times with their intervals, and the paper's Figure 2."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.cost.figure2 import figure2
from harness.page.figures import PageFigure, style
from harness.records import Record, Spread, Timing, remarks_about
from harness.report.paper import cost_figure, layout, load_paper, timed_names
from harness.report.selection import where_measured

PHASES = ("train", "inference")
_HEADS = (
    "What was timed",
    "Phase",
    "ms per batch",
    "10th to 90th percentile",
    "Batches",
    "Ratio to the baseline",
    "Interval",
    "Peak memory, MB",
    "Images per s",
    "Joules per batch",
)


def baseline() -> str:
    """Return the name of the method that times are divided by."""
    return _named(next(name for table in load_paper().tables if (name := layout(int(table)).baseline)))


def _named(method: str) -> str:
    return timed_names().get(method, method)


def _timed(record: Record) -> str:
    """Return the name of what was timed: the method, and `plain` where its formulas were computed as printed."""
    return _named(record.method) + (f", {record.variant}" if record.variant else "")


def settings(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the newest timing of each method and implementation, by the device and sizes that it was timed with.

    Timings on a busy machine are left out.
    """
    found: dict[str, dict[str, Record]] = {}
    for record in sorted(records, key=lambda record: record.created):
        if record.speed is not None and record.status == "completed" and not record.speed.loaded:
            found.setdefault(where_measured(record), {})[record.label] = record
    return {where: [timed[label] for label in sorted(timed)] for where, timed in sorted(found.items())}


def time_table(timed: Sequence[Record]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and rows of the table of one setting, without the columns that nothing was measured for."""
    rows = [_time_row(_timed(record), phase, timing) for record in timed for phase, timing in _timings(record).items()]
    kept = [place for place in range(len(_HEADS)) if any(row[place] for row in rows)]
    return tuple(_HEADS[place] for place in kept), [tuple(row[place] for place in kept) for row in rows]


def _timings(record: Record) -> dict[str, Timing]:
    assert record.speed is not None, "the records of a setting are timings"
    return {str(phase): timing for phase, timing in record.speed.phases.items()}


def _time_row(label: str, phase: str, timing: Timing) -> tuple[str, ...]:
    """Return one row under `_HEADS`."""
    ratio = timing.ratio
    return (
        label,
        phase,
        _ms(timing.median_s),
        f"{_ms(timing.p10_s)} to {_ms(timing.p90_s)}",
        str(timing.n),
        "" if ratio is None else f"{ratio.median:.3f}",
        "" if ratio is None else _interval(ratio),
        "" if timing.peak_memory_bytes is None else f"{timing.peak_memory_bytes / 1e6:,.0f}",
        "" if timing.images_per_s is None else f"{timing.images_per_s:,.1f}",
        "" if timing.energy is None else _amount(timing.energy),
    )


def _ms(seconds: float) -> str:
    return _amount(1000 * seconds)


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _ends(ratio: Spread) -> tuple[float, float]:
    """Return a 95 % interval of the median; where there are too few rounds for one, the 10th and 90th percentile."""
    if ratio.ci_low is None or ratio.ci_high is None:
        return ratio.p10, ratio.p90
    return ratio.ci_low, ratio.ci_high


def _interval(ratio: Spread) -> str:
    low, high = _ends(ratio)
    return f"{low:.3f} to {high:.3f}" + ("" if ratio.ci_low is not None else " (10th to 90th percentile)")


def ratio_figures(records: Sequence[Record], results_dir: Path) -> list[PageFigure]:
    """Return the measured times over those of the baseline, with intervals: one figure for each timed setting.

    Args:
        records: the records.
        results_dir: their folder, for the remarks.

    Raises:
        UserError: the remarks have an error.
    """
    found = []
    for number, (where, timed) in enumerate(settings(records).items()):
        data, rows = [], []
        for index, phase in enumerate(PHASES):
            known = {_timed(r): ratio for r in timed if (ratio := _ratio(r, phase)) is not None}
            if not known:
                continue
            ends = [_ends(ratio) for ratio in known.values()]
            middles = [ratio.median for ratio in known.values()]
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": phase,
                    "x": middles,
                    "y": list(known),
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": [high - middle for (_, high), middle in zip(ends, middles, strict=True)],
                        "arrayminus": [middle - low for (low, _), middle in zip(ends, middles, strict=True)],
                    },
                    "marker": style(index)["marker"],
                }
            )
            rows += [(label, phase, f"{ratio.median:.3f}", _interval(ratio)) for label, ratio in known.items()]
        if data:
            found.append(_ratio_figure(number, where, remarks_about(timed, results_dir), data, rows))
    return found


def _ratio(record: Record, phase: str) -> Spread | None:
    timing = _timings(record).get(phase)
    return None if timing is None else timing.ratio


def _ratio_figure(
    number: int, where: str, remarks: Sequence[str], data: list[dict[str, Any]], rows: Sequence[tuple[str, ...]]
) -> PageFigure:
    return PageFigure(
        f"ratio-{number}",
        f"Time relative to that of {baseline()}: {where}",
        " ".join(["Medians with their intervals.", *remarks]),
        data,
        {"xaxis": {"title": {"text": f"time / time of {baseline()}"}}, "yaxis": {"dtick": 1, "autorange": "reversed"}},
        ("What was timed", "Phase", "Ratio", "Interval"),
        tuple(rows),
    )


def figure_2() -> PageFigure:
    """Return the paper's Figure 2: computed FLOPs by the number of visual tokens, one panel per text length."""
    points, plan = figure2(), cost_figure(2)
    lengths = list(plan.text_lengths)
    data: list[dict[str, Any]] = []
    for index, series in enumerate((plan.input_space, plan.memory_space)):
        for panel, length in enumerate(lengths):
            own = [point for point in points if (point["series"], point["text_length"]) == (series, length)]
            axis = "" if panel == 0 else str(panel + 1)
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": series,
                    "legendgroup": series,
                    "showlegend": panel == 0,
                    "x": [point["visual_tokens"] for point in own],
                    "y": [point["flops"] / 1e12 for point in own],
                    "xaxis": f"x{axis}",
                    "yaxis": f"y{axis}",
                    **style(index),
                }
            )
    layout: dict[str, Any] = {"grid": {"rows": 1, "columns": len(lengths), "pattern": "independent"}}
    highest = max(point["flops"] for point in points) / 1e12
    for panel, length in enumerate(lengths):
        axis = "" if panel == 0 else str(panel + 1)
        layout[f"xaxis{axis}"] = {"title": {"text": f"visual tokens, text length {length}"}}
        layout[f"yaxis{axis}"] = {"title": {"text": "TFLOPs"} if panel == 0 else {}, "range": [0, 1.05 * highest]}
    rows = [(p["series"], str(p["text_length"]), str(p["visual_tokens"]), f"{p['flops'] / 1e12:.3f}") for p in points]
    return PageFigure(
        "figure-2",
        f"Figure 2: {plan.title}",
        "Computed by formula, for the language model alone. It does not depend on any record.",
        data,
        layout,
        ("Series", "Text length", "Visual tokens", "TFLOPs"),
        tuple(rows),
    )
