"""What a command prints stands in a page as the code prints it, so that no number is copied by hand.

A page asks for it with the line `<!-- prints -->` below a block of one command. MkDocs calls the function `on_...`.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

_ASKED = re.compile(r"^```sh\npython -m harness (?P<arguments>[^\n]+)\n```\n\n<!-- prints -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put what commands print in the places of a page that ask for it."""
    return with_output(markdown, Path(config.config_file_path).parent)


def with_output(text: str, root: Path) -> str:
    """Return a page with the output of its commands.

    Args:
        text: Markdown.
        root: folder in which the commands run.

    Raises:
        RuntimeError: a command fails; the message has what it said.
    """

    def replaced(match: re.Match[str]) -> str:
        block = match[0].removesuffix("<!-- prints -->")
        return f"{block}It prints:\n\n{_output(shlex.split(match['arguments']), root)}"

    return _ASKED.sub(replaced, text)


def _output(arguments: list[str], root: Path) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`python -m harness {shlex.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout
