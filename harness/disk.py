"""Room on a disk for what is to be written."""

import shutil
from pathlib import Path

from harness.errors import UserError
from harness.numbers import readable_size


def free_space(folder: Path) -> int:
    """Return the free bytes of the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_space(size: int, folder: Path, remedy: str) -> None:
    """Check that a disk has room for what is to be written.

    Args:
        size: bytes that are still to be written.
        folder: where they go; need not exist yet.
        remedy: how to use another disk.

    Raises:
        UserError: there is too little space.
    """
    if size > (free := free_space(folder)):
        raise UserError(
            f"{folder}: has {readable_size(free)} free, but {readable_size(size)} are still to be written; free some "
            f"space, or {remedy}"
        )
