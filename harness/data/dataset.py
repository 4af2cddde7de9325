"""A loaded data set with samples of any type: its splits, its hashes and the samples that were left out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import Field

from harness.data.imagecheck import check_images, images_digest
from harness.data.imagefile import BadImage, HasImage
from harness.errors import UserError
from harness.files import sha256_of_files

SampleT = TypeVar("SampleT", bound=HasImage)
SetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
"""The name that a data set gives itself. It becomes part of paths, so it contains no path separator."""
IMAGES = "images"
"""The key of the hash over all images in `DataSet.sha256`."""


@dataclass(frozen=True, slots=True)
class DataSet(Generic[SampleT]):
    """A loaded data set.

    Attributes:
        name: name of the data set, such as "scienceqa" or "coco-subset".
        root: the data folder.
        noun: what messages call a sample, such as "problem".
        splits: split -> samples, after the limit was applied and bad samples were left out.
        sha256: file name -> hash of each file that was read. `checked` adds `images`, one hash over all images used.
        split_sizes: split -> number of samples in the file, before any limit.
        skipped: samples that were left out because of their image.
        image_sha256: image file -> hash of each good image; `checked` fills it.
    """

    name: str
    root: Path
    noun: str
    splits: Mapping[str, tuple[SampleT, ...]]
    sha256: Mapping[str, str]
    split_sizes: Mapping[str, int]
    skipped: tuple[BadImage, ...] = ()
    image_sha256: Mapping[Path, str] = field(default_factory=dict)

    @property
    def data_hash(self) -> str:
        """One SHA-256 over all entries of `sha256`."""
        return sha256_of_files(self.sha256)

    @property
    def used_sizes(self) -> dict[str, int]:
        """Split -> number of samples in `splits`."""
        return {split: len(samples) for split, samples in self.splits.items()}

    def all_samples(self) -> list[SampleT]:
        """Return the samples of all loaded splits in one list."""
        return [sample for samples in self.splits.values() for sample in samples]

    def samples(self, split: str) -> tuple[SampleT, ...]:
        """Return the samples of one split.

        Raises:
            UserError: the split is empty.
        """
        if not self.splits[split]:
            raise UserError(f"{self.root}: split {split!r} has no usable {self.noun}; add one or repair its image")
        return self.splits[split]

    def without(self, bad: Iterable[BadImage]) -> "DataSet[SampleT]":
        """Return the set without the samples named in `bad`, which are added to `skipped`."""
        bad = tuple(bad)
        names = {entry.qid for entry in bad}
        kept = {split: tuple(s for s in samples if s.qid not in names) for split, samples in self.splits.items()}
        return replace(self, splits=kept, skipped=(*self.skipped, *bad))

    def checked(
        self, skip_bad: bool = False, say: Callable[[str], None] = lambda line: None, use_known: bool = True
    ) -> "DataSet[SampleT]":
        """Decode and hash every image, so that a bad image is found before training and not in the middle of it.

        Args:
            skip_bad: leave out samples with a bad image instead of raising an error.
            say: called with a line about earlier checks that cannot be used; see `harness.data.known_images`.
            use_known: trust earlier checks of files that have not changed; if false, every file is read again.

        Returns:
            the set with the hashes of its images, and without bad samples.

        Raises:
            UserError: the first bad image, unless `skip_bad` is set; names the sample.
        """
        found = check_images(
            self.all_samples(), self.root, skip_bad=skip_bad, noun=self.noun, use_known=use_known, say=say
        )
        good = self.without(found.bad)
        paths = [sample.image for sample in good.all_samples() if sample.image is not None]
        digest = images_digest(found.sha256, paths, self.root)
        return replace(good, sha256={**good.sha256, IMAGES: digest}, image_sha256=found.sha256)


def require_folder(root: Path, annotations: str) -> None:
    """Check that the data folder exists.

    Args:
        root: the data folder.
        annotations: name of the file that the folder should contain, for the message.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder; give --data-root a folder with {annotations}")


def require_official_sizes(root: Path, title: str, sizes: Mapping[str, int], official: Mapping[str, int]) -> None:
    """Check that a set declared as the full benchmark has the official number of samples per split.

    Args:
        root: the data folder.
        title: the benchmark's name in the message.
        sizes: split -> number of samples in the files.
        official: split -> number of samples in the full benchmark.

    Raises:
        UserError: the numbers differ.
    """
    if sizes != official:
        have = ", ".join(f"{split} {count}" for split, count in sizes.items())
        want = ", ".join(f"{split} {count}" for split, count in official.items())
        raise UserError(
            f"{root}: is declared as the full {title} but has {have} instead of {want}; "
            "complete the files or do not declare the set as full"
        )
