"""How the tests call the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

Run = Callable[..., "Done"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


def files(folder: Path) -> set[str]:
    """Every file below a folder, by its path in it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
