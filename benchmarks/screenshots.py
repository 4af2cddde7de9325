"""Make the pictures of the report page that README.md and docs/ show: `python -m benchmarks.screenshots`.

The page is made from the records and opened in headless Chromium. The same records, fonts and browser give the same
pictures. This needs `pip install -e ".[report,browser]"` and the program chromium.
"""

import argparse
import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from harness.errors import UserError
from harness.files import write_atomic
from harness.page.build import write_page

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
LARGEST = 150_000
"""Size in bytes that no picture exceeds, so that README opens at once."""
_COLOURS = (256, 128, 64, 32)
_MARGIN = 12
"""White space around a picture, in pixels: a page of dark colours shows it too."""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_MS = 300_000
"""How long to wait for the browser on a busy machine."""
_SAMPLES = 2
"""Number of questions in the picture of the answers."""


def _leaderboard(tab: Any) -> Any:
    """Return Table 1 as it stands in the page."""
    return tab.locator("#table-1")


def _figure_4(tab: Any) -> Any:
    """Return the first figure that stands for the paper's Figure 4."""
    return tab.locator("#inside figure", has_text="Figure 4").first


def _answers(tab: Any) -> Any:
    """Return the first questions with a picture that the methods answer differently, and hide the others."""
    tab.evaluate(
        """count => {
            for (const card of document.querySelectorAll("section.questions .card")) {
                card.hidden = !(card.dataset.disputed && card.querySelector("img") && count-- > 0);
            }
        }""",
        _SAMPLES,
    )
    return tab.locator("section.questions .cards").first


PICTURES: Mapping[str, tuple[int, Callable[[Any], Any]]] = {
    "leaderboard.png": (1320, _leaderboard),
    "figure-4.png": (1000, _figure_4),
    "answers.png": (1000, _answers),
}
"""Name of the file -> width of the window in pixels, and the part of the page that is shown."""


def small(picture: bytes) -> bytes:
    """Return a PNG with a margin and a palette, with as many colours as keep it within `LARGEST`.

    Args:
        picture: a PNG.

    Raises:
        UserError: it is too large even with the fewest colours.
    """
    image = ImageOps.expand(Image.open(io.BytesIO(picture)).convert("RGB"), _MARGIN, "white")
    for colours in _COLOURS:
        buffer = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= LARGEST:
            return buffer.getvalue()
    raise UserError(
        f"a picture of {image.width} × {image.height} pixels exceeds {LARGEST:,} bytes; show less of the page"
    )


def make(results: Path, out: Path) -> list[Path]:
    """Write all pictures and return their paths.

    Args:
        results: the results folder.
        out: folder of the pictures.

    Raises:
        UserError: playwright or chromium is missing, the page cannot be made, or it lacks what a picture shows.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UserError('the pictures need playwright; run pip install -e ".[browser]" in the checkout') from error
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise UserError(f"the pictures need one of the programs {', '.join(_BROWSERS)}; install one")
    written = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = write_page(results, Path(folder))
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name, (width, part) in PICTURES.items():
            tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
            tab.set_default_timeout(_PATIENCE_MS)
            tab.goto(page.as_uri())
            shown = part(tab)
            if not shown.count():
                raise UserError(f"--results {results}: the page has nothing to show as {name}")
            picture = shown.screenshot(animations="disabled")
            written.append(out / name)
            write_atomic(written[-1], small(picture))
            tab.close()
        chromium.close()
    return written


def main() -> None:
    """Run the command; a mistake of the user ends it with one line and status 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--out", type=Path, default=FOLDER)
    given = parser.parse_args()
    try:
        for path in make(given.results, given.out):
            print(f"{path} ({path.stat().st_size / 1000:.0f} kB)")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
