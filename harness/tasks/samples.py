"""Keep a few captions and small copies of their images, so that a reader can look at them.

All runs on a data set keep the same few images and share the copies. The copies are stored in the results folder, so
that a page made from the records shows them without the data set. They are encoded again from the decoded pixels, so
that nothing else in the original file, such as a comment or a colour profile, is passed on.
"""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from harness.data.coco import CaptionImage
from harness.data.imagefile import load_image
from harness.files import write_atomic
from harness.records import Data, Sample

SAMPLES = 20
"""Number of samples that a run keeps: the first ones of the evaluation split."""
SIDE = 320
"""Longest side of a copy in pixels."""


def keep_samples(shown: Sequence[tuple[CaptionImage, str]], task: str, data: Data, results_dir: Path) -> list[Sample]:
    """Write copies of the images, atomically, to `results_dir/samples/{task}/{set}-{hash}/{image id}`.

    Args:
        shown: the images, each with the model's caption.
        task: the task's name.
        data: the record's `data` section. Its hash is part of the path, so copies of different sets never mix.
        results_dir: the results folder.

    Returns:
        The record's samples, whose paths are relative to `results_dir`.

    Raises:
        UserError: an image cannot be read.
    """
    folder = Path("samples", task, f"{data.name}-{data.data_hash[:16]}")
    samples = []
    for image, caption in shown:
        content, suffix = _copy(image.image)
        place = folder / f"{image.qid}{suffix}"
        write_atomic(results_dir / place, content)
        samples.append(
            Sample(image_id=image.qid, image=place.as_posix(), caption=caption, references=list(image.captions))
        )
    return samples


def _copy(path: Path) -> tuple[bytes, str]:
    """Return the content and the suffix of a copy: a small image as PNG, a larger one scaled down as JPEG."""
    image = load_image(path)
    image.info = {}  # Pillow would write the colour profile and other metadata in it to the copy
    buffer = io.BytesIO()
    if max(image.size) <= SIDE:
        image.save(buffer, format="PNG", optimize=True)
        return buffer.getvalue(), ".png"
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    image.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue(), ".jpg"
