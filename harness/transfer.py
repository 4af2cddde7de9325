"""One file from the network: it goes on where an earlier process stopped, and shows how far it is."""

import io
import os
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from tqdm import tqdm

from harness.escape import visible

LOG_SECONDS = 30
"""Seconds between two lines about a download where the output is no terminal."""


def complete_file(url: str, path: Path, size: int | None, name: str, headers: dict[str, str] | None = None) -> None:
    """Download what a file does not have yet of a file on the network. The caller checks the content.

    A file that has more than the whole content, which would never be completed, is begun anew.

    Args:
        url: address of the file on the network.
        path: the file, with the first bytes of the content or none; need not exist.
        size: bytes of the whole content; None if not known.
        name: what the progress bar calls it.
        headers: headers of the request.
    """
    options: Any = {"headers": headers, "expected_size": size, "displayed_filename": name, "tqdm_class": ProgressBar}
    with open(path, "ab") as file:
        if size is not None and file.tell() > size:
            file.truncate(0)
        begun = file.seek(0, os.SEEK_END)
        try:
            http_get(url, file, resume_size=begun, **options)
        except HfHubHTTPError as error:
            if error.response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not begun:
                raise
            file.truncate(0)
            file.seek(0)
            http_get(url, file, **options)


class ProgressBar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """Progress of one file: bytes, rate and time left. Where the output is no terminal, a line now and then.

    It is no bar of `huggingface_hub`, because loading a model hides all of those, also while it still downloads files.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        options.pop("bar_format", None)  # the client's own one has no time left
        options.pop("name", None)  # of a group of bars of the client
        if constants.HF_HUB_DISABLE_PROGRESS_BARS:
            options["disable"] = True
        self.terminal = sys.stderr.isatty()
        if not self.terminal:
            # All that tqdm itself then writes is an empty line behind each file, which nobody needs.
            nowhere = io.StringIO()
            options |= {"mininterval": LOG_SECONDS, "disable": options.get("disable") or False, "file": nowhere}
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the bar. The name of the file in it is from outside."""
        if self.terminal:
            super().display(visible(str(self) if msg is None else msg), pos)
        elif self.n:
            print(visible(str(self)), file=sys.stderr, flush=True)

    def update_transfer(self, count: float | None = 1) -> None:
        """Count nothing: the bytes that were received are the bytes that are written."""
