"""`run --dry-run` as text: a table with a row for each run, a line with the sums, and what is missing."""

import json
from collections.abc import Sequence
from typing import Any

from harness.cost.output import shown_table
from harness.escape import text_table
from harness.run.dryrun import DryRun

HEADERS = ("Run", "Seed", "Steps", "Step (s)", "Hours", "Memory (GiB)", "Micro-batch", "Paper", "Time from")
_SIDES = "lrrrrrrll"
UNKNOWN = "unknown"


def dry_run_text(found: DryRun, missing: Sequence[str], jobs: int, format: str, width: int | None = None) -> str:
    """Return what a dry run found.

    Args:
        found: what the runs would take.
        missing: what the runs need and what is missing, one line each.
        jobs: how many runs are made side by side.
        format: `json`, or `markdown` for a table and lines below it.
        width: columns of the terminal, which `markdown` fits; None for files and pipes.
    """
    total = {"runs": len(found.rows), "hours": found.hours, "side_by_side": jobs, "disk_bytes": found.disk_bytes}
    if format == "json":
        whole = {"runs": found.rows, "total": total, "downloads": found.downloads, "missing": list(missing)}
        return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
    cells = [_cells(row) for row in found.rows]
    table = text_table(cells, HEADERS) if width is None else shown_table(HEADERS, cells, _SIDES, width).rstrip("\n")
    lines = [table, "", _total(found, jobs)]
    lines += [f"will be downloaded: {line}" for line in found.downloads]
    lines += [f"missing: {line}" for line in missing] or ["nothing is missing"]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one run."""
    cells = (
        row["run"],
        row["seed"],
        row["steps"],
        row["step_s"],
        None if row["hours"] is None else _hours(row["hours"]),
        row["memory_gib"],
        row["micro_batch"],
        "-" if row["paper"] is None else row["paper"],
        row["hours_source"],
    )
    return tuple(UNKNOWN if cell is None else str(cell) for cell in cells)


def _total(found: DryRun, jobs: int) -> str:
    count = f"{len(found.rows)} run{'' if len(found.rows) == 1 else 's'}"
    hours = UNKNOWN if found.hours is None else _hours(found.hours)
    side = f" one after another; {jobs} are made side by side" if jobs > 1 and len(found.rows) > 1 else ""
    downloads = "see below" if found.downloads else "none"
    return f"total: {count}; hours: {hours}{side}; disk: {found.disk_bytes / 2**20:.1f} MiB; downloads: {downloads}"


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}" if hours >= 0.1 else f"{hours:.4f}"
