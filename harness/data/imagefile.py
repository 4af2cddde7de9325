"""Opening image files that may be hostile, and checking a whole set of them before training starts.

What is taken: PNG and JPEG by content (the name does not matter), one frame, at most 50 megapixels.
Palette, grey, alpha, bilevel and CMYK images are converted to RGB as Pillow does (alpha is dropped, as in the
reference); 16-bit grey keeps its high byte, as Pillow does for 16-bit RGB. Anything else is refused.
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
MEND = "mend it or pass --skip-bad-images"
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
    """An image that cannot be used: whose it is, which file, why."""

    qid: str
    path: str
    reason: str


class HasImage(Protocol):
    """A record with an identity and perhaps an image."""

    @property
    def qid(self) -> str: ...
    @property
    def image(self) -> Path | None: ...


def check_relative(relative: str) -> None:
    """Raise ValueError where a path, as it is written, is absolute or has `..` in it."""
    parts = relative.replace("\\", "/")
    if "\0" in parts or parts.startswith("/") or Path(parts).is_absolute() or ".." in parts.split("/"):
        raise ValueError(f"path {relative!r} leaves the data root")


def contained(root: Path, relative: str) -> Path:
    """The file `root/relative`, which must exist and lie inside `root` even after links are followed.

    Raises:
        ValueError: absolute path, `..`, link out of the root, missing, or not a regular file; says which.
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
    """`image` as 8-bit RGB.

    Raises:
        ValueError: a pixel mode that has no safe conversion.
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
        UserError: missing, not PNG or JPEG, over 50 megapixels, animated or damaged; names the file.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width}x{height} pixels, the limit is {MAX_PIXELS // 10**6} megapixels")
            # A multi-picture JPEG (format MPO) is one photograph with a preview beside it, not an animation.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise ValueError("animated; give a single frame")
            return to_rgb(image)
    except _DECODER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: not a usable image ({reason})") from error


def check_images(samples: Iterable[HasImage], skip_bad: bool = False, noun: str = "problem") -> list[BadImage]:
    """Decode every image once.

    Args:
        samples: records with `qid` and `image`.
        skip_bad: collect the bad ones instead of raising at the first.
        noun: what a sample is called in the error.

    Returns:
        the bad images (empty unless `skip_bad`).

    Raises:
        UserError: the first bad image, naming the record; not with `skip_bad`.
    """
    bad: list[BadImage] = []
    for sample in samples:
        if sample.image is None:
            continue
        try:
            load_image(sample.image)
        except UserError as error:
            if not skip_bad:
                raise UserError(f"{noun} {sample.qid}, field 'image': {error}; {MEND}") from error
            bad.append(BadImage(sample.qid, str(sample.image), str(error)))
    return bad


def images_digest(paths: Sequence[Path], root: Path) -> str:
    """One SHA-256 for a set of image files: over their sorted relative names and content hashes."""
    base = root.resolve()
    lines = sorted(f"{path.resolve().relative_to(base).as_posix()} {sha256_file(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
