"""What runs would download first, and whether the disks have room for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from harness.backbone.weights import Missing
from harness.data.places import kept_folder, place_of
from harness.disk import free_space
from harness.numbers import readable_size

REMEDY = "free some space, or set HF_HOME (weights) or XDG_CACHE_HOME (data), or --results, to a folder on another disk"


@dataclass(frozen=True)
class Download:
    """One thing that is downloaded.

    Attributes:
        offer: the line that says what it is.
        size: bytes that come over the network; None if not known before the hub is asked.
        writes: bytes on the disk while it is made, and the folder that they go to, which need not exist.
    """

    offer: str
    size: int | None
    writes: tuple[tuple[int, Path], ...]


@dataclass(frozen=True)
class Room:
    """The room on one disk.

    Attributes:
        needed: bytes to be written.
        free: free bytes.
        folders: the folders on it that are written to.
    """

    needed: int
    free: int
    folders: tuple[Path, ...]

    @property
    def is_enough(self) -> bool:
        """Whether everything fits."""
        return self.needed <= self.free

    def __str__(self) -> str:
        folders = " and ".join(map(str, self.folders))
        return f"{readable_size(self.needed)} to be written to {folders}, {readable_size(self.free)} free there"


def download_of_data(task: str) -> Download:
    """Return the download of the data of a task into the user's cache.

    Raises:
        UserError: the task's data has no place, or the user has no cache folder.
    """
    place = place_of(task)
    writes = ((place.cached, Path(constants.HF_HUB_CACHE)), (place.size, kept_folder(task)))
    return Download(place.offer(), place.transferred, writes)


def downloads_of_weights(missing: Missing) -> list[Download]:
    """Return the downloads of the weights that are not on this machine."""
    cache = Path(constants.HF_HUB_CACHE)
    return [Download(source.offer(), source.size, ((source.size or 0, cache),)) for source in missing.sources]


def rooms_for(downloads: Sequence[Download]) -> Iterator[Room]:
    """Yield, for each disk that downloads are written to, what they need and what is free."""
    disks: dict[int, list[tuple[int, Path]]] = {}
    for size, folder in (write for download in downloads for write in download.writes):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        disks.setdefault(there.stat().st_dev, []).append((size, folder))
    for parts in disks.values():
        folders = tuple(dict.fromkeys(folder for size, folder in parts if size))
        if folders:
            yield Room(sum(size for size, _ in parts), free_space(parts[0][1]), folders)


def total_size(downloads: Sequence[Download]) -> int | None:
    """Return the bytes that all of them take over the network; None if that of one is not known."""
    sizes = [download.size for download in downloads]
    return None if None in sizes else sum(size or 0 for size in sizes)


def readable_total(downloads: Sequence[Download]) -> str:
    """Return the same as text, which says so where the size of a download is not known."""
    known = [download.size for download in downloads if download.size is not None]
    unknown = len(downloads) - len(known)
    parts = [readable_size(sum(known))] if known else []
    return " and ".join([*parts, *([f"{unknown} of unknown size"] if unknown else [])]) or "none"
