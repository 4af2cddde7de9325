"""Where the data of a task is on this machine, and fetching it if it is not there."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from harness.data import coco, coco_download
from harness.data.huggingface import SOURCE, fetch_scienceqa
from harness.errors import UserError
from harness.files import cache_folder, require_writable
from harness.streams import Say

ENVIRONMENT = "PEFT_VL_BENCH_DATA"
"""Environment variable that names a folder with one folder of data for each task."""


@dataclass(frozen=True)
class Place:
    """How the data of one task is recognised and fetched.

    Attributes:
        annotations: the file that every data folder of the task has.
        offer: returns the line that says what a download is.
        absent: returns the line that says that the data is not there.
        remedy: what to do where nothing can be downloaded.
        fetch: downloads the data into a new folder.
        transferred: bytes that come over the network.
        size: bytes that the folder takes while it is made.
        cached: bytes that the download also leaves in the hub's cache.
    """

    annotations: str
    offer: Callable[[], str]
    absent: Callable[[], str]
    remedy: str
    fetch: Callable[[Path, Say], None]
    transferred: int
    size: int
    cached: int = 0


PLACES: Mapping[str, Place] = {
    "coco": Place(
        coco.ANNOTATIONS,
        coco_download.offer,
        coco_download.absent,
        coco_download.REMEDY,
        coco_download.fetch_coco,
        transferred=coco_download.transferred_bytes(),
        size=coco_download.peak_bytes(),
    ),
    "scienceqa": Place(
        "problems.json",
        SOURCE.offer,
        SOURCE.absent,
        SOURCE.remedy,
        fetch_scienceqa,
        transferred=SOURCE.size or 0,
        size=SOURCE.size or 0,
        cached=SOURCE.size or 0,
    ),
}
"""Task -> place."""


def kept_folder(task: str) -> Path:
    """Return the folder of the user's cache where fetched data of a task is kept. It need not exist.

    Raises:
        UserError: the user has no cache folder.
    """
    return cache_folder() / "data" / task


def find_data(task: str) -> Path | None:
    """Return the data folder of a task on this machine: `$PEFT_VL_BENCH_DATA/TASK`, else the one in the user's cache.

    Args:
        task: name of the task.

    Returns:
        The folder; None if there is none with the task's annotations.

    Raises:
        UserError: the user has no cache folder.
    """
    named = os.environ.get(ENVIRONMENT)
    if named and (Path(named, task) / PLACES[task].annotations).is_file():
        return Path(named, task)
    kept = kept_folder(task)
    return kept if (kept / PLACES[task].annotations).is_file() else None


def find_or_fetch_data(task: str, say: Say) -> Path:
    """Return the data folder of a task, and download it into the user's cache if it is not on this machine.

    Args:
        task: name of the task.
        say: called with lines on what is downloaded.

    Raises:
        UserError: the data cannot be downloaded, or is not complete.
    """
    if folder := find_data(task):
        return folder
    kept = kept_folder(task)
    require_writable(kept.parent)
    # Of several commands that need the same data, one fetches it.
    with FileLock(kept.with_name(f"{task}.lock")):
        if (folder := find_data(task)) is None:
            fetch_data(task, kept, say)
    return folder or kept


def fetch_data(task: str, folder: Path, say: Say) -> None:
    """Download the data of a task.

    Args:
        task: name of the task.
        folder: a folder that does not exist yet, or an empty one.
        say: called with lines on what is downloaded.

    Raises:
        UserError: there is no such task, the folder is not empty, or the download fails.
    """
    if task not in PLACES:
        raise UserError(f"data fetch {task}: no such data set; give {' or '.join(PLACES)}")
    PLACES[task].fetch(folder, say)
