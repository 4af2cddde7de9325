"""A loaded data set, whatever its samples are: splits, hashes, and what was left out of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import Field

from harness.data.imagefile import BadImage, HasImage, check_images, images_digest
from harness.errors import UserError
from harness.files import sha256_of_files

T = TypeVar("T", bound=HasImage)
SetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
"""Name that a set gives itself; it goes into paths."""
IMAGES = "images"
"""Where the hash over all images stands among the hashes of the files."""


@dataclass(frozen=True, slots=True)
class DataSet(Generic[T]):
    """A loaded set.

    Attributes:
        name: which set, e.g. "scienceqa" or "coco-subset".
        root: the data folder.
        noun: what a sample is called in messages, e.g. "problem".
        splits: split -> samples, cut by a limit, without those left out.
        sha256: file name -> hash of each file read; once `checked`, `images` -> one hash over all images used.
        split_sizes: split -> samples in the file, before any limit.
        skipped: samples left out because of their image.
    """

    name: str
    root: Path
    noun: str
    splits: Mapping[str, tuple[T, ...]]
    sha256: Mapping[str, str]
    split_sizes: Mapping[str, int]
    skipped: tuple[BadImage, ...] = ()

    @property
    def data_hash(self) -> str:
        """One SHA-256 over `sha256`."""
        return sha256_of_files(self.sha256)

    @property
    def used_sizes(self) -> dict[str, int]:
        """split -> number of samples in `splits`."""
        return {split: len(samples) for split, samples in self.splits.items()}

    def all_samples(self) -> list[T]:
        """Every loaded sample, split by split."""
        return [sample for samples in self.splits.values() for sample in samples]

    def samples(self, split: str) -> tuple[T, ...]:
        """The samples of one split.

        Raises:
            UserError: there are none.
        """
        if not self.splits[split]:
            raise UserError(f"{self.root}: split {split!r} holds no {self.noun} that can be used")
        return self.splits[split]

    def without(self, bad: Iterable[BadImage]) -> "DataSet[T]":
        """The set without the samples of `bad`, which are added to `skipped`."""
        bad = tuple(bad)
        names = {entry.qid for entry in bad}
        kept = {split: tuple(s for s in samples if s.qid not in names) for split, samples in self.splits.items()}
        return replace(self, splits=kept, skipped=(*self.skipped, *bad))

    def checked(self, skip_bad: bool = False) -> "DataSet[T]":
        """The set with every image decoded once and hashed, so that no bad one is met in the middle of training.

        Args:
            skip_bad: leave out samples with a bad image instead of stopping.

        Raises:
            UserError: the first bad image, by its sample; not with `skip_bad`.
        """
        good = self.without(check_images(self.all_samples(), skip_bad, self.noun))
        paths = [sample.image for sample in good.all_samples() if sample.image is not None]
        return replace(good, sha256={**good.sha256, IMAGES: images_digest(paths, self.root)})
