"""Copies of images inside the page."""

import base64
from collections.abc import Iterable
from pathlib import Path

from harness.errors import UserError
from harness.files import read_file

_LARGEST = 4 * 2**20
"""No copy that a run keeps has more bytes: no side is longer than 320 pixels."""
_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


def data_uris(paths: Iterable[str], results_dir: Path) -> dict[str, str]:
    """Return the images as `data:` addresses, by their path inside the results folder. The page has each one once.

    Args:
        paths: paths inside the results folder. An image that is not there any more is left out.
        results_dir: the results folder.

    Raises:
        UserError: a path leads out of the folder, or an image cannot be read.
    """
    found = {}
    root = results_dir.resolve()
    for path in dict.fromkeys(paths):
        place = (root / path).resolve()
        if not place.is_relative_to(root) or place.suffix not in _TYPES:
            raise UserError(f"{path}: is not an image inside {results_dir}; repair the record that names it")
        try:
            content = read_file(place, _LARGEST)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(
                f"{place}: cannot be read ({error.strerror}); remove it, or check its permissions"
            ) from error
        found[path] = f"data:{_TYPES[place.suffix]};base64,{base64.b64encode(content).decode('ascii')}"
    return found
