"""Check all images of a data set before training starts: each file is read once, hashed and decoded, on all cores."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from harness.data.cores import usable_cores
from harness.data.imagefile import IMAGE_ADVICE, BadImage, HasImage, decode_image, read_image
from harness.data.known_images import FileStamp, KnownImages, relative_name
from harness.errors import UserError


@dataclass(frozen=True, slots=True)
class CheckedImages:
    """What the check of a set's images found.

    Attributes:
        sha256: image file -> SHA-256 of its content, for each good image.
        bad: the images that cannot be used.
    """

    sha256: Mapping[Path, str]
    bad: tuple[BadImage, ...]


def check_images(
    samples: Iterable[HasImage],
    root: Path,
    *,
    skip_bad: bool = False,
    noun: str = "problem",
    use_known: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> CheckedImages:
    """Hash and decode every image file once. Files that an earlier check found good are not read again.

    Args:
        samples: the samples whose images are checked. Their paths contain no links, as `contained` returns them.
        root: the data folder.
        skip_bad: collect bad images instead of raising an error at the first.
        noun: what the message calls a sample.
        use_known: trust earlier checks; if false, every file is read again.
        say: called with a line where earlier checks cannot be read, or this one cannot be kept.

    Raises:
        UserError: the first bad image, unless `skip_bad` is set; names the sample.
    """
    pictured = [(sample.qid, sample.image) for sample in samples if sample.image is not None]
    paths = list(dict.fromkeys(path for _, path in pictured))
    known = KnownImages(root, say)
    sha256 = {path: digest for path in paths if use_known and (digest := known.find(path))}
    new = [path for path in paths if path not in sha256]
    reasons: dict[Path, str] = {}
    owners = {path: qid for qid, path in reversed(pictured)}
    try:
        with closing(_examine_all(new)) as findings:
            for path, stamp, digest, reason in findings:
                if reason is None:
                    sha256[path] = digest
                    known.add(path, stamp, digest)
                elif skip_bad:
                    reasons[path] = reason
                else:
                    raise UserError(f"{noun} {owners[path]}, field 'image': {reason}; {IMAGE_ADVICE}")
    finally:
        # A user who repairs the bad image does not wait for the others again.
        known.save()
    bad = tuple(BadImage(qid, str(path), reasons[path]) for qid, path in pictured if path in reasons)
    return CheckedImages(sha256, bad)


def images_digest(sha256: Mapping[Path, str], paths: Iterable[Path], root: Path) -> str:
    """Return one SHA-256 for a set of image files, taken over their relative paths and content hashes in sorted order.

    Args:
        sha256: image file -> SHA-256 of its content.
        paths: the files of the set, without links.
        root: the folder that the relative paths start from.
    """
    base = root.resolve()
    lines = sorted(f"{relative_name(path, base)} {sha256[path]}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


_Finding = tuple[Path, FileStamp | None, str, str | None]
"""An image file, its stamp, the SHA-256 of its content, and why it cannot be used: None for a good image."""


def _examine_all(paths: Sequence[Path]) -> Generator[_Finding, None, None]:
    """Examine files on all cores; yield what is found in their order."""
    # Threads are enough: reading, hashing and decoding release the interpreter's lock.
    with ThreadPoolExecutor(usable_cores()) as pool:
        yield from pool.map(_examine, paths)


def _examine(path: Path) -> _Finding:
    stamp = FileStamp.of(path)
    try:
        content = read_image(path)
        decode_image(content, path)
    except UserError as error:
        return path, None, "", str(error)
    return path, stamp, hashlib.sha256(content).hexdigest(), None
