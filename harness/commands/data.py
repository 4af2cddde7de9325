"""The subcommands `data check`, which says whether a data folder is complete and readable, and `data fetch`."""

import json
from pathlib import Path

from rich.console import Console

from harness.data.check import check_coco, check_scienceqa, print_report
from harness.data.places import fetch_data, kept_folder
from harness.errors import UserError
from harness.escape import visible
from harness.streams import print_result, say_on_stderr

CHECKS = {"scienceqa": check_scienceqa, "coco": check_coco}


def check_command(task: str, root: Path, full: bool, format: str, console: Console) -> int:
    """Print the report on a data folder.

    Args:
        task: whose data the folder holds.
        root: the data folder.
        full: whether the folder must hold the full benchmark.
        format: `json`, or `markdown` for people.
        console: where the markdown report goes.

    Returns:
        The exit status: 2 where training could not start on the data, 0 otherwise.

    Raises:
        UserError: there is no such task, or the folder cannot be read as its data.
    """
    if task not in CHECKS:
        raise UserError(f"data check {task}: no such data set; give {' or '.join(CHECKS)}")
    report = CHECKS[task](root, full, say_on_stderr)
    if format == "json":
        print_result(json.dumps(report.as_dict(), indent=2))
    else:
        print_report(report, console)
    return 0 if report.ok else 2


def fetch_command(task: str, root: Path | None, images: Path | None = None) -> None:
    """Download the data of a task and print its folder.

    Args:
        task: whose data.
        root: a new folder; None takes the user's cache, where `run` looks for it.
        images: a folder of COCO's images to link instead of downloading them.

    Raises:
        UserError: there is no such task, the folder is not empty, or the download fails.
    """
    folder = root or kept_folder(task)
    fetch_data(task, folder, say_on_stderr, images)
    print_result(visible(str(folder)))
