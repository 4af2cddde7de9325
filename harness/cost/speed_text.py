"""The report of a speed measurement as text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cost.goals import Verdict
from harness.cost.output import is_json, markdown_table
from harness.cost.plan import TABLE
from harness.cost.speed_report import report_json
from harness.escape import markdown
from harness.records import Clock, Record
from harness.report.paper import layout, timed_names
from harness.terminal import Column, fitting

LEGEND = """
A ratio divides two {clock} times of the same round; the table gives the median over the rounds. {spread}
"""
SPREADS = (
    "The 95 % confidence interval of the median follows in parentheses if there are at least six rounds. The 10th and "
    "90th percentiles follow in brackets."
)
ONE_SPREAD = (
    "The 95 % confidence interval of the median follows in parentheses. If there are fewer than six rounds, the 10th "
    "and 90th percentiles follow in brackets instead."
)
CLOCKS: dict[Clock, str] = {"cpu": "CPU", "wall": "wall-clock"}
"""Names of the clocks in a report."""


def report_text(
    records: Sequence[Record], format: str, verdicts: Sequence[Verdict] = (), width: int | None = None
) -> str:
    """Return one measurement as text, ending in a newline.

    Args:
        records: all records of the measurement, from `make_records`.
        verdicts: the goals and their ratios.
        format: `markdown` or `json`.
        width: columns of the terminal, which decide what the Markdown has; None for a file or a pipe, which gets all.

    Raises:
        UserError: the format is unknown.
    """
    as_json = is_json(format)
    report = report_json(records, verdicts)
    if as_json:
        return json.dumps(report, indent=2) + "\n"
    brief = width is not None
    columns = _columns(report, brief)
    shown = columns if width is None else fitting(columns, width)
    cells = list(zip(*(column.cells for column in shown), strict=True))
    table = markdown_table([column.title for column in shown], cells, "".join("lr"[column.right] for column in shown))
    legend = LEGEND.format(clock=CLOCKS[report["clock"]], spread=ONE_SPREAD if brief else SPREADS)
    if left := [column.title for column in columns if column not in shown]:
        legend += (
            f"\nNot shown, because the terminal is narrow: {', '.join(left)}. A file or a pipe gets all columns.\n"
        )
    others = f"{_goals(report, brief)}{_estimates(report)}{_warning(report)}"
    return f"**{markdown(_title(report))}**\n\n{table}\n{legend}{others}"


def _columns(report: Mapping[str, Any], brief: bool) -> list[Column]:
    """Return the columns of the report; those that say most are kept first where there is no room for all.

    Args:
        report: from `report_json`.
        brief: give one spread of each ratio only.
    """
    names = timed_names()
    baseline = names.get(layout(TABLE).baseline or "", "baseline")
    rows = sorted(report["rows"], key=lambda row: str(row["phase"]), reverse=True)

    def seconds(key: str) -> list[str]:
        return ["n/a" if row[key] is None else f"{row[key]:.4f}" for row in rows]

    def ratio(name: str, prefix: str) -> list[str]:
        return [_with_spread(row, name, prefix, brief) for row in rows]

    memory = ["n/a" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 2**30:.2f}" for row in rows]
    busy = ["n/a" if row["utilisation"] is None else f"{row['utilisation']:.1%}" for row in rows]
    return [
        Column("method", [names.get(row["method"], row["method"]) for row in rows]),
        Column("implementation", [row["implementation"] for row in rows]),
        Column("phase", [row["phase"] for row in rows]),
        Column("s/batch", seconds("median_s"), right=True, keep=1),
        Column("p10", seconds("p10_s"), right=True, keep=8),
        Column("p90", seconds("p90_s"), right=True, keep=9),
        Column("CPU s/batch", seconds("cpu_s"), right=True, keep=7),
        Column(f"/ {baseline}", ratio("ratio_to_baseline", "ratio"), right=True, keep=2),
        Column("/ bare towers", ratio("ratio_to_yardstick", "ratio_to_yardstick"), right=True, keep=4),
        Column("tokens/s", [f"{row['tokens_per_s']:,.0f}" for row in rows], right=True, keep=6),
        Column("images/s", [f"{row['images_per_s']:,.1f}" for row in rows], right=True, keep=5),
        Column("peak GiB", memory, right=True, keep=3),
        Column("utilisation", busy, right=True, keep=10),
    ]


def _with_spread(row: Mapping[str, Any], name: str, prefix: str, brief: bool) -> str:
    """Return a ratio as `median (confidence interval) [percentiles]`, or `n/a`; if brief, with one of the two."""
    if row[name] is None:
        return "n/a"
    low, high, p10, p90 = (row[f"{prefix}_{key}"] for key in ("ci_low", "ci_high", "p10", "p90"))
    interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
    percentiles = "" if interval and brief else f" [{p10:.3f}, {p90:.3f}]"
    return f"{row[name]:.3f}{interval}{percentiles}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _title(report: dict[str, Any]) -> str:
    processes = f" of {report['processes']} processes" if report["processes"] > 1 else ""
    return (
        f"Seconds per batch of {report['preset']} on {report['device']}, {report['dtype']}, "
        f"{_count(report['threads'], 'thread')}; {_count(report['text_length'], 'text token')}, "
        f"{_count(report['new_tokens'], 'new token')}, batch {report['train_batch']} in training and "
        f"{report['eval_batch']} in inference{', compiled' if report['compiled'] else ''}; "
        f"{_count(report['rows'][0]['n'], 'round')}{processes}"
    )


def _goals(report: dict[str, Any], brief: bool) -> str:
    """Return the table of goals, with one spread of each ratio only if brief; empty if there are none."""
    if not report["goals"]:
        return ""
    body = []
    for row in report["goals"]:
        ratio, _, limit = row["goal"].partition("=")
        body.append((ratio, _with_spread(row, "ratio", "ratio", brief), limit, row["result"]))
    table = markdown_table(("goal", "measured", "at most", "result"), body, "lrrl")
    return f"\n**Goals** (undecided: the confidence interval contains the limit, or there is none)\n\n{table}\n"


def _estimates(report: dict[str, Any]) -> str:
    """Return the table of estimates; empty if the backbone is whole."""
    rows = [row for row in report["rows"] if row["layer_s"] is not None]
    if not rows:
        return ""
    body = [
        (row["method"], row["implementation"], row["phase"], f"{row['layer_s']:.4f}", f"{row['whole_s']:.3f}")
        for row in sorted(rows, key=lambda row: row["phase"], reverse=True)
    ]
    heads = ("method", "implementation", "phase", "s a decoder layer", "s/batch of the whole")
    table = markdown_table(heads, body, "lllrr")
    title = "Estimates, not measured: the whole model, from the times of this number of layers and of twice as many"
    return f"\n**{title}**\n\n{table}\n"


def _warning(report: dict[str, Any]) -> str:
    """Return the warning that the machine was busy; empty if it was not."""
    if not report["loaded"]:
        return ""
    load = "unknown" if report["load_average"] is None else f"{report['load_average']:.1f}"
    return (
        f"\nThe machine was busy with other work (load average {load} before the measurement; "
        f"{report['cpu_s_per_s']:.2f} CPU seconds per second on {_count(report['threads'], 'thread')}). "
        "These times enter no table.\n"
    )
