"""Images as tensors, and the store that keeps them."""

import numpy as np
import torch
from PIL import Image

from harness.data.images import CLIP_MEAN, CLIP_STD, STORE_BYTES, ImagePreprocessor, ImageStore


def test_preprocessing_is_resize_scale_normalise():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (30, 50, 3), dtype=np.uint8))
    got_CHW = ImagePreprocessor(16)(image)
    resized = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    want = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert got_CHW.shape == (3, 16, 16) and got_CHW.dtype == torch.float32
    np.testing.assert_allclose(got_CHW.numpy(), want.transpose(2, 0, 1), atol=1e-5)


def test_statistics_are_an_option():
    white = Image.new("RGB", (4, 4), (255, 255, 255))
    got_CHW = ImagePreprocessor(2, CLIP_MEAN, CLIP_STD)(white)
    want = torch.tensor([(1 - m) / s for m, s in zip(CLIP_MEAN, CLIP_STD, strict=True)])
    torch.testing.assert_close(got_CHW[:, 0, 0], want)


def test_the_store_has_room_for_the_training_images_of_scienceqa():
    images_of_224_pixels = 3 * 224**2
    assert 6_218 * images_of_224_pixels < STORE_BYTES < 7_134 * images_of_224_pixels


def test_store_keeps_up_to_its_budget(tmp_path):
    paths = [tmp_path / f"{shade}.png" for shade in range(3)]
    for shade, path in enumerate(paths):
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(path)
    store = ImageStore(ImagePreprocessor(4), max_bytes=2 * 48)
    first = [store.pixels(path) for path in paths]
    assert len(store) == 2
    paths[0].unlink()
    assert torch.equal(store.pixels(paths[0]), first[0])
    assert [int(pixels[0, 0, 0]) for pixels in first] == [0, 1, 2]
