"""Where the data of a task is on this machine, and fetching it if it is not there."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data import coco, coco_download
from harness.data.dataset import DataSet
from harness.data.huggingface import SOURCE, fetch_scienceqa
from harness.data.scienceqa import load_scienceqa
from harness.errors import UserError
from harness.files import cache_folder, require_writable
from harness.hub import hub_reachable
from harness.locks import FOREVER, acquire
from harness.streams import Say

ENVIRONMENT = "PEFT_VL_BENCH_DATA"
"""Environment variable that names a folder with one folder of data for each task."""


@dataclass(frozen=True)
class Place:
    """How the data of one task is recognised, read and fetched.

    Attributes:
        annotations: the file that every data folder of the task has.
        load: reads a data folder and finds every image file, and opens none.
        offer: returns the line that says what a download is.
        absent: returns the line that says that the data is not there.
        remedy: what to do where nothing can be downloaded.
        reachable: returns whether the pages answer from which the data comes.
        fetch: downloads the data into a new folder.
        transferred: bytes that come over the network.
        size: bytes that the folder takes while it is made.
        cached: bytes that the download also leaves in the hub's cache.
        link: does the same as `fetch` with links to the images of a folder; None where images cannot be linked.
    """

    annotations: str
    load: Callable[[Path], DataSet[Any]]
    offer: Callable[[], str]
    absent: Callable[[], str]
    remedy: str
    reachable: Callable[[], bool]
    fetch: Callable[[Path, Say], None]
    transferred: int
    size: int
    cached: int = 0
    link: Callable[[Path, Say, Path], None] | None = None


PLACES: Mapping[str, Place] = {
    "coco": Place(
        coco.ANNOTATIONS,
        coco.load_coco,
        coco_download.offer,
        coco_download.absent,
        coco_download.REMEDY,
        coco_download.authors_reachable,
        coco_download.fetch_coco,
        transferred=coco_download.transferred_bytes(),
        size=coco_download.peak_bytes(),
        link=coco_download.fetch_coco,
    ),
    "scienceqa": Place(
        "problems.json",
        load_scienceqa,
        SOURCE.offer,
        SOURCE.absent,
        SOURCE.remedy,
        hub_reachable,
        fetch_scienceqa,
        transferred=SOURCE.size or 0,
        size=SOURCE.size or 0,
        cached=SOURCE.size or 0,
    ),
}
"""Task -> place. A task that is not here needs `--data-root`."""


def place_of(task: str) -> Place:
    """Return the place of a task's data.

    Raises:
        UserError: the task has none, so that only the user knows where its data is.
    """
    if task not in PLACES:
        raise UserError(f"--data-root: needed for --task {task}, whose data is not looked for; give its data folder")
    return PLACES[task]


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
        UserError: the task's data has no place, or the user has no cache folder.
    """
    named, annotations = os.environ.get(ENVIRONMENT), place_of(task).annotations
    if named and (Path(named, task) / annotations).is_file():
        return Path(named, task)
    kept = kept_folder(task)
    return kept if (kept / annotations).is_file() else None


def unheeded(task: str) -> str | None:
    """Return a line where `$PEFT_VL_BENCH_DATA` is set but has no data of a task; None otherwise.

    Args:
        task: name of the task.

    Raises:
        UserError: the task's data has no place, or the user has no cache folder.
    """
    named, annotations = os.environ.get(ENVIRONMENT), place_of(task).annotations
    if not named or (Path(named, task) / annotations).is_file():
        return None
    return f"{ENVIRONMENT}: {named} has no {task}/{annotations}; looking in {kept_folder(task)}"


def find_or_fetch_data(task: str, say: Say) -> Path:
    """Return the data folder of a task, and download it into the user's cache if it is not on this machine.

    Args:
        task: name of the task.
        say: called with lines on what is downloaded.

    Raises:
        UserError: the task's data has no place, cannot be downloaded, or is not complete.
    """
    if line := unheeded(task):
        say(line)
    if folder := find_data(task):
        return folder
    kept = kept_folder(task)
    with _fetching(kept, say):
        if (folder := find_data(task)) is None:
            place_of(task).fetch(kept, say)
    return folder or kept


def fetch_data(task: str, folder: Path, say: Say, images: Path | None = None) -> None:
    """Download the data of a task. If another command is doing so, wait until it has, and download what is left.

    Args:
        task: name of the task.
        folder: a folder that does not exist yet, or an empty one.
        say: called with lines on what is downloaded.
        images: a folder of images to link instead of downloading them.

    Raises:
        UserError: there is no such task, its images cannot be linked, the folder is not empty, or the download fails.
    """
    if task not in PLACES:
        raise UserError(f"data fetch {task}: no such data set; give {' or '.join(PLACES)}")
    place = PLACES[task]
    if images is not None and place.link is None:
        linked = " or ".join(name for name, other in PLACES.items() if other.link)
        raise UserError(f"--images {images}: only for {linked}; leave it out")
    with _fetching(folder, say) as waited:
        if waited and (folder / place.annotations).is_file():
            return
        if images is not None and place.link is not None:
            place.link(folder, say, images)
        else:
            place.fetch(folder, say)


@contextmanager
def _fetching(folder: Path, say: Say) -> Iterator[bool]:
    """Hold the lock of a data folder while it is made: two commands would append to the same unfinished files.

    Args:
        folder: the folder, which need not exist.
        say: called with a line if another command holds the lock.

    Yields:
        Whether another command held it.

    Raises:
        UserError: the lock cannot be made beside the folder.
    """
    folder = Path(os.path.abspath(folder))
    require_writable(folder.parent)
    file, instead = folder.parent / f"{folder.name}.lock", "give a folder on another file system"
    lock = acquire(file, 0, instead)
    waited = lock is None
    if lock is None:
        say(f"another command is making {folder}; waiting for it")
        lock = acquire(file, FOREVER, instead)
        assert lock is not None, "it waits for ever"
    with lock:
        yield waited
