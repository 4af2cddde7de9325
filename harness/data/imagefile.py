"""Open image files that are not trusted, and check all images of a data set before training starts.

PNG and JPEG files with one frame and at most 50 megapixels are accepted. They are recognised by content, not by name.
Palette, grey, alpha, bilevel and CMYK images are converted to RGB as Pillow does it; alpha is dropped, as in the
reference code. 16-bit grey keeps its high byte, as Pillow does for 16-bit RGB. Anything else is rejected.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from harness.errors import UserError
from harness.files import sha256_file

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

MAX_PIXELS = 50_000_000
IMAGE_ADVICE = "repair the file or pass --skip-bad-images"
"""End of the message on a bad image, which says what the user can do."""
FORMATS = ("PNG", "JPEG")
_CONVERTIBLE = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that cannot be used: the id of its sample, the file, and the reason."""

    qid: str
    path: str
    reason: str


class HasImage(Protocol):
    """A sample with an id and an optional image."""

    @property
    def qid(self) -> str:
        """The id of the sample."""
        ...

    @property
    def image(self) -> Path | None:
        """The image file, or None for a sample without an image."""
        ...


def check_relative(relative: str) -> None:
    """Check by the text of a path alone, without following links, that it is relative and stays below its root.

    Raises:
        ValueError: the path is absolute or contains `..`.
    """
    posix = relative.replace("\\", "/")
    if "\0" in posix or posix.startswith("/") or Path(posix).is_absolute() or ".." in posix.split("/"):
        raise ValueError(f"path {relative!r} leaves the data root")


def contained(root: Path, relative: str) -> Path:
    """Return the file `root/relative` after checking that it exists and is inside `root`.

    Args:
        root: the data folder.
        relative: path below `root`.

    Returns:
        the path with all links resolved.

    Raises:
        ValueError: the path is absolute, contains `..`, leaves the root through a link, is missing, or is not a
            regular file; the message says which.
    """
    check_relative(relative)
    try:
        base = root.resolve(strict=True)
        path = (base / relative).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"file {relative} is missing or cannot be reached") from error
    if not path.is_relative_to(base):
        raise ValueError(f"path {relative!r} leaves the data root through a link")
    if not path.is_file():
        raise ValueError(f"{relative} is not a regular file")
    return path


def to_rgb(image: "PILImage") -> "PILImage":
    """Convert an image to 8-bit RGB.

    Raises:
        ValueError: there is no safe conversion for the image's pixel mode.
    """
    if image.mode.startswith("I"):
        high_byte = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    if image.mode not in _CONVERTIBLE:
        raise ValueError(f"pixel mode {image.mode} is not supported; convert it to 8-bit RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def load_image(path: Path) -> "PILImage":
    """Decode one image file to RGB.

    Raises:
        UserError: the file is missing, not PNG or JPEG, larger than 50 megapixels, animated or damaged; names the file.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"has {width}x{height} pixels; the limit is {MAX_PIXELS // 10**6} megapixels")
            # A multi-picture JPEG (format MPO) contains one photograph and its preview; it is not an animation.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise ValueError("is animated; give a single frame")
            return to_rgb(image)
    except _DECODER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: not a usable image ({reason})") from error


def check_images(samples: Iterable[HasImage], skip_bad: bool = False, noun: str = "problem") -> list[BadImage]:
    """Decode every image once.

    Args:
        samples: the samples whose images are decoded.
        skip_bad: collect bad images instead of raising an error at the first.
        noun: what the message calls a sample.

    Returns:
        the bad images; always empty unless `skip_bad` is set.

    Raises:
        UserError: the first bad image, unless `skip_bad` is set; names the sample.
    """
    bad: list[BadImage] = []
    for sample in samples:
        if sample.image is None:
            continue
        try:
            load_image(sample.image)
        except UserError as error:
            if not skip_bad:
                raise UserError(f"{noun} {sample.qid}, field 'image': {error}; {IMAGE_ADVICE}") from error
            bad.append(BadImage(sample.qid, str(sample.image), str(error)))
    return bad


def images_digest(paths: Sequence[Path], root: Path) -> str:
    """Return one SHA-256 for a set of image files, taken over their relative paths and content hashes in sorted order.

    Args:
        paths: the image files.
        root: the folder that the relative paths start from.
    """
    base = root.resolve()
    lines = sorted(f"{path.resolve().relative_to(base).as_posix()} {sha256_file(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
