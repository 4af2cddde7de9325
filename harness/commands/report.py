"""`report`: write the page."""

from pathlib import Path

from harness.numbers import readable_size
from harness.page.build import LARGEST, write_page


def report_text(results_dir: Path, out: Path) -> str:
    """Write the page, and return its path and size as text, with a warning if it is large.

    Args:
        results_dir: the results folder.
        out: folder of the page.

    Raises:
        UserError: see `write_page`.
    """
    path = write_page(results_dir, out)
    size = path.stat().st_size
    text = f"{path} ({readable_size(size)})"
    if size > LARGEST:
        text += f"\nnote: it is larger than {readable_size(LARGEST)}; give --results a folder with fewer records"
    return text
