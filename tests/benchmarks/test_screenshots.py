"""The pictures of the report page: that they are there, small, described, and made by the script."""

import io
import re

import pytest
from PIL import Image

from benchmarks.screenshots import FOLDER, LARGEST, PICTURES, ROOT, small
from harness.errors import UserError


def noise(width: int, height: int) -> bytes:
    """Return a PNG that compresses badly."""
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 100).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_folder_holds_the_pictures_that_the_script_makes() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_shows_something(name: str) -> None:
    assert (FOLDER / name).stat().st_size <= LARGEST
    with Image.open(FOLDER / name) as image:
        assert image.format == "PNG" and image.width >= 900
        assert len(image.convert("RGB").getcolors(image.width * image.height) or []) > 10


@pytest.mark.parametrize("document", ["README.md", "docs/index.md"])
def test_a_document_shows_pictures_with_a_description(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    shown = re.findall(r"!\[([^]]*)\]\(([^)]*pictures/[^)]+)\)", text)
    assert shown and all(len(words.split()) >= 8 for words, _ in shown)
    assert {((ROOT / document).parent / path).resolve() for _, path in shown} <= {FOLDER / name for name in PICTURES}


def test_a_large_picture_gets_fewer_colours() -> None:
    content = small(noise(400, 400))
    with Image.open(io.BytesIO(content)) as image:
        assert len(content) <= LARGEST and image.size == (424, 424) and len(image.getcolors() or []) < 256


def test_a_picture_that_stays_too_large_is_refused() -> None:
    with pytest.raises(UserError, match=r"a picture of 1024 × 1024 pixels exceeds 150,000 bytes"):
        small(noise(1000, 1000))
