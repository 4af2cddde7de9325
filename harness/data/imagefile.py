"""Open image files that are not trusted.

PNG and JPEG files with one frame and at most 50 megapixels are accepted. They are recognised by content, not by name.
Long thin images, and progressive JPEGs of very many scans, are refused: they would cost far more than their pixels.
A JPEG far larger than those of the benchmarks is decoded at a fraction of its size.
Palette, grey, alpha, bilevel and CMYK images are converted to RGB as Pillow does it; alpha is dropped, as in the
reference code. 16-bit grey keeps its high byte, as Pillow does for 16-bit RGB. Anything else is rejected.

The orientation that EXIF data states is ignored: pixels are taken in the order in which the file stores them. The
reference code does the same, because it opens images with Pillow's `Image.open(...).convert("RGB")`.
"""

import io
import os
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.errors import UserError
from harness.files import read_file

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

MAX_PIXELS = 50_000_000
MAX_BYTES = 512 * 2**20
"""Largest file that is read. An image of `MAX_PIXELS` with 16 bits in each of four channels is smaller, even as it is
stored without compression."""
MAX_SIDE = 65_535
"""Longest side in pixels, the largest that JPEG has. Resizing computes weights for every pixel of a side."""
MAX_SCANNED = 500_000_000
"""Largest number of pixels that are decoded, those of every scan of a JPEG. Progressive files have about ten scans."""
MAX_SCANS = 500
MAX_SEGMENTS = 50_000
"""Largest number of segments of a JPEG. An ordinary file has a few dozen, and a progressive one some more per scan."""
KEPT_SIDE = 2048
"""Pixels that the shorter side of a large JPEG keeps at least: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where
that leaves both sides as long as this. The images of the benchmarks stay as they are: those of COCO have at most 640
pixels a side, and those of ScienceQA are PNG files. The vision towers read at most 336 pixels a side."""
IMAGE_ADVICE = "repair the file, or leave its sample out by `run --skip-bad-images`"
"""End of the message on a bad image, which says what the user can do."""
FORMATS = ("PNG", "JPEG")
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
"""A marker of a JPEG that begins a segment or the image, or ends it. Others may stand within the data of a scan."""
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = b"\xd8", b"\xd9", b"\xda"
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
# Pillow warns of damaged EXIF data and of previews that it does not find, in lines of its own; the pixels are usable.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


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


def contained(base: Path, relative: str) -> Path:
    """Return the file `base/relative` after checking that it exists and is inside `base`.

    A folder of images may be a link to another disk. An image itself may be a link only to a file inside `base`.

    Args:
        base: the data folder with all links resolved, which is done once and not for every image.
        relative: path below `base`.

    Returns:
        the path with all links resolved; below a folder that is linked from elsewhere, the path as it is in `base`.

    Raises:
        ValueError: the path is absolute, contains `..`, is a link that leaves the root, is missing, or is not a
            regular file; the message says which.
    """
    check_relative(relative)
    try:
        # The same as `Path.resolve`, which takes three times as long: this is called for every image of a set.
        path = os.path.realpath(os.path.join(base, relative), strict=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"file {relative} is missing or cannot be reached") from error
    if not os.path.isfile(path):
        raise ValueError(f"{relative} is not a regular file")
    if os.path.commonpath((base, path)) == str(base):
        return Path(path)
    # Hashes of a set contain the names of its images below `base`, which do not depend on where a folder is linked to.
    named = os.path.normpath(os.path.join(base, relative))
    folder = os.path.realpath(os.path.dirname(named))
    if path != os.path.join(folder, os.path.basename(named)):
        raise ValueError(f"path {relative!r} leaves the data root through a link")
    return Path(named)


def to_rgb(image: "PILImage") -> "PILImage":
    """Convert an image to 8-bit RGB.

    Raises:
        ValueError: there is no safe conversion for the image's pixel mode.
    """
    if image.mode.startswith("I"):
        return _high_byte(image).convert("RGB")
    if image.mode not in _CONVERTIBLE:
        raise ValueError(f"pixel mode {image.mode} is not supported; convert it to 8-bit RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _high_byte(image: "PILImage") -> "PILImage":
    """Return the high byte of a 16-bit grey image, by bands: a wider copy of all pixels would need much memory."""
    pixels_HW = np.asarray(image)
    high_HW = np.empty(pixels_HW.shape, dtype=np.uint8)
    for top in range(0, len(pixels_HW), 256):
        band = slice(top, top + 256)
        high_HW[band] = np.clip(pixels_HW[band] >> 8, 0, 255)
    return Image.fromarray(high_HW)


def read_image(path: Path) -> bytes:
    """Return the content of an image file.

    Raises:
        UserError: the file is missing, cannot be read, or is larger than any image of 50 megapixels; names the file.
    """
    try:
        return read_file(path, MAX_BYTES)
    except OSError as error:
        raise UserError(f"{path}: not a usable image ({error.strerror or error})") from error


def decode_image(content: bytes, path: Path) -> "PILImage":
    """Decode the content of an image file to RGB. The orientation in its EXIF data is ignored.

    A JPEG whose shorter side has twice `KEPT_SIDE` pixels or more is decoded at a fraction of its size by Pillow's
    `draft` mode, which saves time and memory.

    Args:
        content: the bytes of the file.
        path: the file, for messages.

    Raises:
        UserError: the file is not PNG or JPEG, larger than 50 megapixels, animated or damaged; names the file.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_cost(image, content)
            image.draft(None, (KEPT_SIDE, KEPT_SIDE))  # PNG has no such mode and stays as it is
            # A multi-picture JPEG (format MPO) contains one photograph and its preview; it is not an animation.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise ValueError("is animated; give a single frame")
            return to_rgb(image)
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: not a usable image ({_what_it_is(content, path)})") from error
    except _DECODER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: not a usable image ({reason})") from error


def _check_cost(image: "PILImage", content: bytes) -> None:
    """Check by its header alone what decoding and resizing an image would cost.

    Raises:
        ValueError: it has too many pixels, too long a side, or too many scans.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"has {width}x{height} pixels; the limit is {MAX_PIXELS // 10**6} megapixels")
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"has {width}x{height} pixels; the limit is {MAX_SIDE} for each side")
    scans = _scans(content) if image.format != "PNG" else 1
    if scans > MAX_SCANS or scans * width * height > MAX_SCANNED:
        raise ValueError(f"is a JPEG of {scans} scans for {width}x{height} pixels; save it again with fewer")


def _scans(content: bytes) -> int:
    """Return the number of scans of a JPEG, as a decoder finds them. What follows the end of the image does not count.

    Raises:
        ValueError: it has too many segments.
    """
    scans = place = 0
    for _ in range(MAX_SEGMENTS):
        marker = _MARKER.search(content, place)
        if marker is None or marker[1] == _END_OF_IMAGE:
            return scans
        scans += marker[1] == _START_OF_SCAN
        place = marker.end()
        if marker[1] != _START_OF_IMAGE:
            # The length counts its own two bytes. The data of a scan, which follow its segment, contain no marker.
            place += int.from_bytes(content[place : place + 2])
    raise ValueError(f"is a JPEG of more than {MAX_SEGMENTS:,} segments; save it again")


def _what_it_is(content: bytes, path: Path) -> str:
    """Return what a file is that is no PNG or JPEG, as far as its first bytes tell."""
    start = content[:512].lstrip().lower()
    if not content:
        return "is empty"
    if start.startswith((b"<!doctype html", b"<html")):
        return "is a web page; download the image again"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS; fetch the file itself with `git lfs pull`"
    Image.init()
    for name, (_, accepts) in Image.OPEN.items():
        # Pillow's plugins rely on 16 bytes.
        if name not in FORMATS and accepts is not None and len(content) >= 16 and accepts(content[:16]) is True:
            return f"is a {name} file named {path.suffix or path.name}; convert it to PNG or JPEG"
    return "cannot identify it as PNG or JPEG"


def load_image(path: Path) -> "PILImage":
    """Decode one image file to RGB. The orientation in its EXIF data is ignored.

    Raises:
        UserError: as `read_image` and `decode_image`.
    """
    # Decoding from memory is faster than from the file, which Pillow reads in many small pieces.
    return decode_image(read_image(path), path)
