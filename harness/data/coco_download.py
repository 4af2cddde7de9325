"""Download COCO Captions: Karpathy's split file, and COCO's images of 2014 or links to a folder that has them.

Everything comes from its authors' own pages. The archives of the images are compared with their published MD5 hashes,
and the set is believed only if it has the official number of images in each split.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from huggingface_hub import constants

from harness.data.coco import ANNOTATIONS, load_coco
from harness.disk import require_space
from harness.errors import UserError, foreign
from harness.files import new_folder
from harness.hub import is_reachable
from harness.numbers import readable_size
from harness.streams import Say
from harness.transfer import complete_file

REMEDY = (
    "run `python -m harness data fetch coco` where there is a network, or give a folder with dataset_coco.json, "
    "train2014/ and val2014/ with --data-root DIR"
)
ANOTHER_DISK = "run `python -m harness data fetch coco --data-root DIR` with a folder on another disk"
FOLDERS = ("train2014", "val2014")
UNPACKING = "unpacking"
"""Name of the folder into which an archive is unpacked."""


@dataclass(frozen=True)
class Archive:
    """A zip file on the network.

    Attributes:
        url: its address.
        size: its bytes; about as many if its author states no MD5.
        md5: MD5 of its content; None if its author states none.
    """

    url: str
    size: int
    md5: str | None = None


KARPATHY = Archive("https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip", 36_745_453)
IMAGES = {
    "train2014": Archive(
        "http://images.cocodataset.org/zips/train2014.zip", 13_510_573_713, "0da8c0bd3d6becc4dcb32757491aca88"
    ),
    "val2014": Archive(
        "http://images.cocodataset.org/zips/val2014.zip", 6_645_013_297, "a3d79f5ed8d289b7a7554ce06a5782b3"
    ),
}
"""Folder of images -> the archive that contains it."""


def transferred_bytes() -> int:
    """Return the bytes of all archives."""
    return sum(archive.size for archive in (KARPATHY, *IMAGES.values()))


def peak_bytes() -> int:
    """Return what a download takes on the disk at most: the images, and the largest archive beside its content."""
    return transferred_bytes() + max(archive.size for archive in (KARPATHY, *IMAGES.values()))


def offer() -> str:
    """Return the line that says what a download of everything is."""
    return (
        f"COCO Captions ({readable_size(transferred_bytes())}, licence: captions CC BY 4.0, each image its own from "
        "Flickr) from http://images.cocodataset.org and https://cs.stanford.edu/people/karpathy/deepimagesent"
    )


def authors_reachable() -> bool:
    """Return whether the pages answer that have the split file and the images."""
    return all(is_reachable(archive.url) for archive in (KARPATHY, *IMAGES.values()))


def absent() -> str:
    """Return the line that says what is missing, without what to do."""
    return f"not on this machine: {offer()}"


def fetch_coco(root: Path, say: Say, images: Path | None = None) -> None:
    """Make a data folder of COCO Captions.

    Args:
        root: a folder that does not exist yet, or an empty one.
        say: called with lines on what happens.
        images: a folder with `train2014/` and `val2014/`, or with these under `images/`, to link instead of
            downloading the images; None downloads them.

    Raises:
        UserError: a folder is not as it should be, a download fails or is damaged, or the set is not complete.
    """
    if images is not None:
        images = _folder_of_images(images)
    if constants.HF_HUB_OFFLINE:
        split_file = f"not on this machine: Karpathy's split file ({readable_size(KARPATHY.size)}) from {KARPATHY.url}"
        missing = absent() if images is None else split_file
        raise UserError(f"{missing}; downloads are switched off (--offline or HF_HUB_OFFLINE); {REMEDY}")
    with new_folder(root) as folder:
        say(f"downloading {offer() if images is None else KARPATHY.url} into {root}")
        for name in FOLDERS:
            target = folder / name
            if target.is_symlink():  # from an earlier try with --images
                target.unlink()
            if target.is_dir():  # from an earlier try that downloaded it
                continue
            if images is not None:
                target.symlink_to((images / name).resolve(), target_is_directory=True)
            else:
                _unpack(IMAGES[name], name, folder, say)
        if not (folder / ANNOTATIONS).is_file():
            _unpack(KARPATHY, ANNOTATIONS, folder, say)
        _remove_archives(folder)
        say("checking that every image is there")
        load_coco(folder, full=True)


def _folder_of_images(given: Path) -> Path:
    """Return which folder has the folders of images: the given one, or `images/` in it.

    Raises:
        UserError: neither has them.
    """
    for folder in (given, given / "images"):
        if all((folder / name).is_dir() for name in FOLDERS):
            return folder
    raise UserError(f"--images {given}: has no train2014/ and val2014/, also not under images/; give COCO's folder")


def _unpack(archive: Archive, wanted: str, folder: Path, say: Say) -> None:
    """Download an archive into a folder, take one file or folder out of it, and remove the archive.

    Args:
        archive: the archive.
        wanted: name of the file or folder in it.
        folder: where it goes. It appears there as a whole or not at all.
        say: called with a line before the archive is unpacked.

    Raises:
        UserError: the download fails or is damaged, or there is too little space.
    """
    path = _download(archive, folder)
    say(f"unpacking {path.name}")
    unpacked = folder / UNPACKING
    shutil.rmtree(unpacked, ignore_errors=True)
    with foreign(f"{path}: cannot be unpacked", "remove it and run the same command again"), ZipFile(path) as content:
        names = [name for name in content.namelist() if name == wanted or name.startswith(f"{wanted}/")]
        require_space(sum(content.getinfo(name).file_size for name in names), folder, ANOTHER_DISK)
        content.extractall(unpacked, members=names)
        (unpacked / wanted).replace(folder / wanted)
    shutil.rmtree(unpacked)
    path.unlink()


def _remove_archives(folder: Path) -> None:
    """Remove what earlier tries left that were killed after unpacking, or that downloaded what is now linked."""
    for archive in (KARPATHY, *IMAGES.values()):
        for path in _paths(archive, folder):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder / UNPACKING, ignore_errors=True)


def _paths(archive: Archive, folder: Path) -> tuple[Path, Path]:
    """Return where an archive goes in a folder, and where it is until it is complete."""
    path = folder / archive.url.rpartition("/")[2]
    return path, path.with_name(f"{path.name}.partial")


def _download(archive: Archive, folder: Path) -> Path:
    """Return an archive in a folder, downloaded from where an earlier try stopped.

    Raises:
        UserError: the download fails or is damaged, or there is too little space.
    """
    path, partial = _paths(archive, folder)
    if path.is_file():
        return path
    with foreign(f"{archive.url}: cannot be downloaded", "run the same command again; it goes on where it stopped"):
        require_space(archive.size - (partial.stat().st_size if partial.exists() else 0), folder, ANOTHER_DISK)
        # An archive without a published hash may be replaced by its author. What is in it is checked all the same.
        complete_file(archive.url, partial, archive.size if archive.md5 else None, path.name)
        with open(partial, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
    if archive.md5 not in (None, found):
        partial.unlink()
        raise UserError(
            f"{archive.url}: arrived damaged (its MD5 is {found}) and was removed; run the same command again"
        )
    partial.replace(path)
    return path
