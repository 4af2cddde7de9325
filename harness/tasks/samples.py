"""Captions kept to be looked at: the same few images for every run on a data set, with small copies of them.

The copies lie under the results folder, so that a page made from records shows them where the data set is not; runs on
the same data share them. They are made anew from the decoded pixels: nothing else of somebody's file is passed on.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from harness.data.imagefile import load_image
from harness.files import write_atomic
from harness.records import Data, Sample

SAMPLES = 20
"""Samples a run keeps: the first ones of the evaluation split."""
SIDE = 320
"""Longest side of a copy in pixels."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A captioned image: its id, its file, what the model says, what people say."""

    image_id: str
    image: Path
    caption: str
    references: Sequence[str]


def keep_samples(shown: Sequence[Shown], task: str, data: Data, results_dir: Path) -> list[Sample]:
    """Write the images' copies, atomically, to `results_dir/samples/{task}/{set}-{hash}/{image id}`.

    Args:
        shown: the samples.
        task: the task's name.
        data: the record's data section; copies of another set never mix with this one's.
        results_dir: where records go.

    Returns:
        The record's samples, whose paths are relative to `results_dir`.

    Raises:
        UserError: an image cannot be used (any more).
    """
    folder = Path("samples", task, f"{data.name}-{data.data_hash[:16]}")
    samples = []
    for item in shown:
        content, suffix = _copy(item.image)
        place = folder / f"{item.image_id}{suffix}"
        write_atomic(results_dir / place, content)
        samples.append(
            Sample(
                image_id=item.image_id,
                image=place.as_posix(),
                caption=item.caption,
                references=list(item.references),
            )
        )
    return samples


def _copy(path: Path) -> tuple[bytes, str]:
    """A small copy of an image: its own pixels as PNG, or a photograph scaled down as JPEG."""
    image = load_image(path)
    image.info = {}  # Pillow would write a colour profile and the like from there
    buffer = io.BytesIO()
    if max(image.size) <= SIDE:
        image.save(buffer, format="PNG", optimize=True)
        return buffer.getvalue(), ".png"
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    image.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue(), ".jpg"
