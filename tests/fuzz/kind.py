"""What a kind of input is: a valid folder, what is changed in it, and what a command then does with it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import mutate


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        make: writes a valid example into a folder.
        use: does with the folder what a command does.
        change: changes the folder.
        needs: a package without which this kind cannot be tried; empty if none is needed.
    """

    make: Callable[[Path], object]
    use: Callable[[Path], object]
    change: Callable[[Path, random.Random], str]
    needs: str = ""


def one_file(*patterns: str) -> Callable[[Path, random.Random], str]:
    """Return a change that mutates one of the files that match; it returns the name of the file."""

    def change(folder: Path, chance: random.Random) -> str:
        path = chance.choice(sorted(path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()))
        path.write_bytes(mutate(path.read_bytes(), chance))
        return path.name

    return change


def command(*arguments: object) -> None:
    """Run a command; its errors are raised, and its output goes where the output of the process goes."""
    from harness import typed

    texts = [str(argument) for argument in arguments]
    typed.require_utf8(texts)
    parser()(texts, standalone_mode=False)


@cache
def parser() -> Any:
    """Return what `cli.app` makes of itself at each call, which takes longer than most commands on a small input."""
    import typer

    from harness import cli

    return typer.main.get_command(cli.app)
