"""Keep a few captions or questions and small copies of their images, so that a reader can look at them.

All runs on a data set keep the same few images and share the copies. The copies are stored in the results folder, so
that a page made from the records shows them without the data set. They are encoded again from the decoded pixels, so
that nothing else in the original file, such as a comment or a colour profile, is passed on.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image

from harness.data.coco import CaptionImage
from harness.data.imagefile import load_image
from harness.data.problem import Problem
from harness.files import write_atomic
from harness.records import Data, Question, Questions, Sample, samples_folder, write_questions

SAMPLES = 20
"""Number of samples with an image that a run keeps."""
TEXT_SAMPLES = 5
"""Number of questions without an image that a run keeps."""
SIDE = 320
"""Longest side of a copy in pixels."""

ItemT = TypeVar("ItemT")


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
    folder = samples_folder(task, data)
    return [
        Sample(
            image_id=image.qid,
            image=_keep_image(image.qid, image.image, folder, results_dir),
            caption=caption,
            references=list(image.captions),
        )
        for image, caption in shown
    ]


def chosen_questions(problems: Sequence[Problem]) -> list[Problem]:
    """Return the questions of a split that runs keep, in order: evenly spread ones with an image, and without."""
    pictured = [problem for problem in problems if problem.image is not None]
    others = [problem for problem in problems if problem.image is None]
    chosen = {problem.qid for problem in (*spread(pictured, SAMPLES), *spread(others, TEXT_SAMPLES))}
    return [problem for problem in problems if problem.qid in chosen]


def spread(items: Sequence[ItemT], most: int) -> list[ItemT]:
    """Return at most `most` items, evenly spread over all, in order."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def keep_questions(problems: Sequence[Problem], task: str, data: Data, results_dir: Path) -> None:
    """Write questions and copies of their images, atomically, where all runs on the same data look for them.

    Args:
        problems: the questions; nothing is written if there are none.
        task: the task's name.
        data: the record's `data` section.
        results_dir: the results folder.

    Raises:
        UserError: an image cannot be read, or a file cannot be written.
    """
    if not problems:
        return
    folder = samples_folder(task, data)
    kept = [
        Question(
            qid=problem.qid,
            question=problem.question,
            options=list(problem.choices),
            gold=problem.answer,
            hint=problem.hint,
            category=problem.category,
            image=None if problem.image is None else _keep_image(problem.qid, problem.image, folder, results_dir),
        )
        for problem in problems
    ]
    write_questions(task, data, results_dir, Questions(questions=kept))


def _keep_image(name: str, path: Path, folder: Path, results_dir: Path) -> str:
    """Write the copy of an image, and return its path inside the results folder."""
    content, suffix = _copy(path)
    place = folder / f"{name}{suffix}"
    write_atomic(results_dir / place, content)
    return place.as_posix()


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
