"""Run the command line as a user would in a terminal, in the process of the tests or in one of its own."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import cli, hub
from tests.warm import ROOT, WarmProcess

Run = Callable[..., "Done"]


class Done(NamedTuple):
    """How a command ended.

    Attributes:
        code: exit status.
        out: what it printed to standard output.
        err: what it printed to standard error.
    """

    code: int
    out: str
    err: str


def call(*arguments: object, offline: bool = True) -> Done:
    """Run `peft-vl-bench` with these arguments on a terminal of 200 columns.

    Exceptions other than the exit of the command line are raised.

    Args:
        arguments: the arguments.
        offline: whether the model hub is switched off.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("COLUMNS", "200")
        patch.setattr(hub.constants, "HF_HUB_OFFLINE", offline)
        patch.setattr(sys, "argv", ["peft-vl-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def fork(*arguments: object, own_group: bool = False) -> WarmProcess:
    """Start the command line, with one compute thread, in a process that needs no time for imports.

    Args:
        arguments: the arguments.
        own_group: whether the process leads a process group, as one that a terminal starts does.
    """
    return WarmProcess([*map(str, arguments)], environment(), own_group)


def environment() -> dict[str, str]:
    """Return the environment of a process of its own: with one compute thread, and without the model hub."""
    own = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **own}


def quick_run(llm: Path, clip: Path, data: Path, results: Path) -> list[str]:
    """Return the arguments of a run of three optimiser steps, without `--methods`.

    Args:
        llm, clip: folders of a small language model and a small vision tower, see `tests.folders`.
        data: data folder.
        results: folder of the records.
    """
    backbone = ["--llm", str(llm), "--clip", f"local-dir:{clip}", "--data-root", str(data)]
    quick = ["--set", "batch_size=4", "--steps", "3"]
    return ["run", *backbone, *quick, "--results", str(results)]


def files(folder: Path) -> set[str]:
    """Return the path of every file below a folder, relative to the folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
