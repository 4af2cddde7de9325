"""Image files: which are accepted, how they become RGB, and which are rejected."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from harness.data.imagefile import KEPT_SIDE, load_image
from harness.errors import UserError


def save(path: Path, image: Image.Image, format: str = "PNG", **options) -> Path:
    image.save(path, format=format, **options)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_modes_become_rgb(tmp_path, mode):
    image = load_image(save(tmp_path / "image.png", Image.new("RGB", (4, 3), (255, 255, 255)).convert(mode)))
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (4, 3), (255, 255, 255))


def test_palette_with_transparency(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    path = save(tmp_path / "image.png", palette, transparency=b"\x00\xff")
    assert [load_image(path).getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (200, 100, 50)]


def test_sixteen_bit_grey_keeps_its_brightness(tmp_path):
    values = np.array([[0, 0x7FFF, 0xFFFF]], dtype=np.uint16)
    image = load_image(save(tmp_path / "image.png", Image.fromarray(values)))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]


def test_sixteen_bit_grey_of_many_rows(tmp_path):
    values = np.arange(700 * 3, dtype=np.uint16).reshape(700, 3) * 31
    image = load_image(save(tmp_path / "image.png", Image.fromarray(values)))
    assert np.array_equal(np.asarray(image)[..., 0], values >> 8)


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "image.png")
    with pytest.raises(UserError, match="not a regular file"):
        load_image(tmp_path / "image.png")


def test_cmyk_jpeg_under_a_png_name(tmp_path):
    path = save(tmp_path / "image.png", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = load_image(path).getpixel((8, 8))
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize(
    ("format", "size", "decoded"),
    [
        ("JPEG", (2 * KEPT_SIDE, 2 * KEPT_SIDE + 6), (KEPT_SIDE, KEPT_SIDE + 3)),
        ("JPEG", (4 * KEPT_SIDE, 2 * KEPT_SIDE - 1), (4 * KEPT_SIDE, 2 * KEPT_SIDE - 1)),
        ("PNG", (2 * KEPT_SIDE, 2 * KEPT_SIDE), (2 * KEPT_SIDE, 2 * KEPT_SIDE)),
    ],
)
def test_only_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path, format, size, decoded):
    assert load_image(save(tmp_path / "image", Image.new("RGB", size), format)).size == decoded


def test_a_fraction_of_a_large_jpeg_looks_the_same_to_a_vision_tower(tmp_path):
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    drawn = Image.fromarray(coarse).resize((2 * KEPT_SIDE, 2 * KEPT_SIDE), Image.Resampling.BICUBIC)
    path = save(tmp_path / "image", drawn, "JPEG", quality=95)
    with Image.open(path) as image:
        full = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC), dtype=float)
    fraction = np.asarray(load_image(path).resize((224, 224), Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(full - fraction).max() <= 3


def test_only_the_scans_of_the_image_itself_are_counted(tmp_path):
    """A phone appends a film to a photograph, and stores a preview with scans of its own before it."""
    others = b"\xff\xda\x00\x02" * 600
    path = save(tmp_path / "image", Image.new("RGB", (24, 16)), "JPEG", comment=others)
    content = path.read_bytes()
    assert content.count(b"\xff\xda") > 600
    path.write_bytes(content + others)
    assert load_image(path).size == (24, 16)


@pytest.mark.parametrize(("orientation", "format"), [(3, "PNG"), (6, "JPEG"), (8, "JPEG")])
def test_orientation_in_exif_data_is_ignored(tmp_path, orientation, format):
    stored = Image.new("RGB", (24, 16), (250, 0, 0))
    stored.paste((0, 0, 250), (16, 0, 24, 16))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = save(tmp_path / "image", stored, format, exif=exif)
    with Image.open(path) as image:  # the file does ask to be turned
        assert not np.array_equal(np.asarray(ImageOps.exif_transpose(image).convert("RGB")), np.asarray(image))
    loaded = load_image(path)
    assert loaded.size == (24, 16)
    left, right = loaded.getpixel((4, 8)), loaded.getpixel((20, 8))
    assert left[0] > 200 > 50 > left[2] and right[2] > 200 > 50 > right[0]


def png(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def animation(format: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(buffer, format=format, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def still(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, format=format)
    return buffer.getvalue()


def scans(count: int, side: int) -> bytes:
    """Return a JPEG with the given number of scans, which are not decoded before they are counted."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, format="JPEG", progressive=True)
    content = buffer.getvalue()
    return content[:-2] + b"\xff\xda\x00\x02" * count + content[-2:]


def segments(count: int) -> bytes:
    """Return a JPEG with the given number of empty comments."""
    return still("JPEG")[:-2] + b"\xff\xfe\x00\x02" * count + b"\xff\xd9"


def damaged_index() -> bytes:
    """Return a JPEG whose index of further pictures is damaged, of which Pillow warns."""
    buffer = io.BytesIO()
    picture = Image.new("RGB", (8, 8))
    picture.save(buffer, "MPO", save_all=True, append_images=[picture])
    return buffer.getvalue().replace(b"MPF\0II", b"MPF\0XX")


def test_a_usable_image_makes_no_warning(tmp_path):
    (path := tmp_path / "image.jpg").write_bytes(damaged_index())
    for module, warned in (("PIL.Image", True), ("harness.data.imagefile", False)):
        code = f"import {module}, io; from PIL import Image; Image.open(io.BytesIO(open({str(path)!r}, 'rb').read()))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ("malformed MPO" in done.stderr) is warned
    assert load_image(path).size == (8, 8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"nothing that Pillow knows", "cannot identify"),
        (b"{}", "cannot identify"),
        (b"\x28\0\0\0", "cannot identify"),
        (still("GIF"), r"is a GIF file named \.png; convert it"),
        (still("TIFF"), r"is a TIFF file named \.png"),
        (still("WEBP"), r"is a WEBP file named \.png"),
        (b"\n<!DOCTYPE html><title>404</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (png(65_536, 1), "the limit is 65535 for each side"),
        (png(1, 50_000_000), "for each side"),
        (scans(600, 64), "is a JPEG of 60[0-9] scans for 64x64 pixels"),
        (scans(60, 5_000), "scans for 5000x5000 pixels"),
        (scans(21, 5_000), "scans for 5000x5000 pixels"),
        (segments(60_000), "is a JPEG of more than 50,000 segments"),
        (png(7_100, 7_100), "50 megapixels"),
        (png(60_000, 60_000), "pixels"),
        (png(2**31 - 1, 2**31 - 1), "pixels"),
        (png(8, 8, b"\0"), "image"),
        (still("PNG")[:1500], "truncated"),
        (still("JPEG")[:600], "truncated"),
        (animation("PNG"), "animated"),
    ],
)
def test_hostile_file_is_one_clear_error(tmp_path, content, reason):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        load_image(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.png"):
        load_image(tmp_path / "nothing.png")
