"""Which image files earlier checks found good, kept in the user's cache folder so that they are not read again.

One JSON file per data folder maps the relative path of each good image to its size, its times of change and the SHA-256
of its content. A file that changed in any of these is not known. Bad images are never kept: there are few of them, and
a user who repairs one must not meet an old verdict. The file is not trusted: one that is damaged is made again.
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import PIL
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import UserError, first_line
from harness.files import cache_folder, read_file, write_atomic

RULES = 2
"""Increase it whenever `harness.data.imagefile` rejects images that it accepted before."""
MIN_IMAGES = 256
"""Sets with fewer images are checked again each time, which takes less than a second."""
SETTLED_NS = 2_000_000_000
"""A file that changed more recently than this is not kept: its next change could bear the same time stamp, because
file systems count time in steps of up to two seconds."""

_COST = "every run checks all images again"


class FileStamp(NamedTuple):
    """What shows that a file has changed: size in bytes, and its times of modification and of status change in ns."""

    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileStamp | None":
        """Return the stamp of a file now; None if it cannot be reached."""
        try:
            found = os.stat(path)
        except OSError:
            return None
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class _Kept(BaseModel):
    """The content of the file. `checker` says which version of the check found the images good."""

    model_config = ConfigDict(strict=True, extra="forbid")

    checker: str
    images: dict[str, tuple[int, int, int, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]]


class KnownImages:
    """The good images of one data folder.

    Args:
        root: the data folder.
        say: called with a line if the file is damaged or cannot be written.
    """

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self._base = root.resolve()
        self._say = say
        name = f"{self._base.name}-{hashlib.sha256(str(self._base).encode()).hexdigest()[:16]}.json"
        self._checker = f"rules {RULES}, Pillow {PIL.__version__}"
        self._images: dict[str, tuple[int, int, int, str]] = {}
        self._new = 0
        self._file: Path | None = None
        try:
            self._file = cache_folder() / "images" / name
        except UserError as error:
            say(f"{first_line(error)}; until then {_COST}")
        else:
            self._images = self._read(self._file)

    def find(self, path: Path) -> str | None:
        """Return the SHA-256 of a file that was found good and has not changed since; None for any other.

        Args:
            path: the file, without links.
        """
        kept = self._images.get(relative_name(path, self._base))
        return kept[3] if kept is not None and kept[:3] == FileStamp.of(path) else None

    def add(self, path: Path, stamp: FileStamp | None, sha256: str) -> None:
        """Note a file that was found good.

        Args:
            path: the file, without links.
            stamp: its stamp from before it was read.
            sha256: SHA-256 of its content.
        """
        if stamp is not None and max(stamp.mtime_ns, stamp.ctime_ns) < time.time_ns() - SETTLED_NS:
            self._images[relative_name(path, self._base)] = (*stamp, sha256)
            self._new += 1

    def save(self) -> None:
        """Write what was added. A cache that cannot be written costs time only, so that is said and nothing else."""
        if self._file is None or not self._new or len(self._images) < MIN_IMAGES:
            return
        try:
            write_atomic(self._file, _Kept(checker=self._checker, images=self._images).model_dump_json())
        except UserError as error:
            self._say(f"{first_line(error)}; until then {_COST}")
        self._new = 0

    def _read(self, file: Path) -> dict[str, tuple[int, int, int, str]]:
        try:
            kept = _Kept.model_validate_json(read_file(file))
        except OSError:
            # Usually there is none yet. If it is something else, `save` replaces the file or says that it cannot.
            return {}
        except ValidationError:
            self._say(f"{file}: damaged; all images are checked again, and the file is replaced")
            return {}
        return kept.images if kept.checker == self._checker else {}


def relative_name(path: Path, base: Path) -> str:
    """Return the path of a file relative to `base`, with forward slashes.

    Args:
        path: a file below `base`, without links.
        base: a folder, without links.
    """
    # `Path.relative_to` is a hundred times slower, which counts for the images of a large set.
    return str(path).removeprefix(f"{base}{os.sep}").replace(os.sep, "/")
