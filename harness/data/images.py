"""Turn images into tensors.

Shapes: C = 3 channels, H = W = `size` in pixels.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from harness.data.cores import usable_cores
from harness.data.imagefile import load_image
from harness.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
STORE_BYTES = 2**30
"""Memory that the decoded images of a run may take: 7,133 of 224 x 224 pixels. ScienceQA trains on 6,218."""
STATISTICS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "clip": (CLIP_MEAN, CLIP_STD)}


def outlives_epoch() -> bool:
    """Return whether what this process keeps serves later epochs, too. A worker process ends with its epoch."""
    return get_worker_info() is None


class ImagePreprocessor:
    """Resize an image, scale it to [0, 1] and normalise each channel.

    Resizing is bicubic to `size` x `size`, without a crop. The reference code normalises with the statistics of
    ImageNet although the vision tower is CLIP's. They are therefore the default; CLIP's are an option.

    Args:
        size: height and width of the result in pixels.
        mean: mean of each channel.
        std: standard deviation of each channel.
    """

    def __init__(self, size: int, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self._mean_C11 = torch.tensor(self.mean, dtype=torch.float32).view(3, 1, 1)
        self._std_C11 = torch.tensor(self.std, dtype=torch.float32).view(3, 1, 1)

    @cached_property
    def store(self) -> "ImageStore":
        """The images that were decoded with this preprocessor. All its collators share them."""
        return ImageStore(self)

    def to_bytes(self, image: Image.Image) -> Tensor:
        """Return the resized pixels of an RGB image as a uint8 tensor `C×H×W`."""
        resized = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()

    def normalise(self, pixels_CHW: Tensor) -> Tensor:
        """Return uint8 pixels `[...]×C×H×W` as normalised float32 of the same shape."""
        return (pixels_CHW.to(torch.float32) / 255 - self._mean_C11) / self._std_C11

    def __call__(self, image: Image.Image) -> Tensor:
        """Return an RGB image as a normalised float32 tensor `C×H×W`."""
        return self.normalise(self.to_bytes(image))


class ImageStore:
    """Resized image files as uint8 tensors, kept in memory because every epoch reads them again.

    Args:
        preprocessor: gives the size.
        max_bytes: how much memory the tensors may take; 0 keeps none.
    """

    def __init__(self, preprocessor: ImagePreprocessor, max_bytes: int = STORE_BYTES) -> None:
        self.preprocessor = preprocessor
        self._capacity = max_bytes // (3 * preprocessor.size**2)
        self._pixels: dict[Path, Tensor] = {}

    def __len__(self) -> int:
        return len(self._pixels)

    def pixels(self, path: Path) -> Tensor:
        """Return the resized pixels of an image file as a uint8 tensor `C×H×W`.

        Raises:
            UserError: the file is not a usable image.
        """
        found = self._pixels.get(path)
        if found is None:
            found = self._decode(path)
            if len(self._pixels) < self._capacity and outlives_epoch():
                self._pixels[path] = found
        return found

    def fill(self, paths: Iterable[Path]) -> None:
        """Decode these files now, on all cores, if all of them fit. Workers that are forked later share them.

        A file that is not a usable image is left out: `pixels` raises the error when the image is needed.
        """

        def decode(path: Path) -> Tensor | None:
            try:
                return self._decode(path)
            except UserError:
                return None

        missing = [path for path in dict.fromkeys(paths) if path not in self._pixels]
        if len(self._pixels) + len(missing) <= self._capacity:
            with ThreadPoolExecutor(usable_cores()) as pool:
                found = zip(missing, pool.map(decode, missing), strict=True)
                self._pixels.update((path, pixels) for path, pixels in found if pixels is not None)

    def _decode(self, path: Path) -> Tensor:
        return self.preprocessor.to_bytes(load_image(path))
