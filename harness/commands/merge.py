"""The subcommand `results merge`: join results folders, and say what became of their runs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.escape import visible
from harness.records import merge
from harness.streams import print_result


def merge_command(folders: Sequence[Path], results: Path, format: str) -> int:
    """Copy the runs of several results folders into one, and print what became of them.

    Args:
        folders: results folders.
        results: the one to copy into.
        format: `markdown` for lines, or `json`.

    Returns:
        The exit status: 1 if there are conflicts, otherwise 0.

    Raises:
        UserError: see `harness.records.merge`.
    """
    merged = merge(folders, results)
    if format == "json":
        print_result(json.dumps(asdict(merged), indent=2))
        return 1 if merged.conflicts else 0
    for line in merged.conflicts:
        print_result(visible(f"conflict: {line}; remove one of the two"))
    counts = f"{len(merged.added)} runs copied into {results}, {len(merged.present)} were there already"
    print_result(visible(f"{counts}, {len(merged.conflicts)} conflicts"))
    return 1 if merged.conflicts else 0
