"""Standard output that is full, closed, or not in UTF-8."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main

ROOT = Path(__file__).parents[2]
TABLE = ("table", "--results", "no-such-folder")
PRINTING = (TABLE, ("--help",), ("table", "--help"), (), ("score",), ("--version",), ("--show-completion", "bash"))
"""Commands that print their result, help, version or shell completion."""


def harness(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.PIPE, **options)


def table(*more: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    """Print Table 1 in a process of its own, without records unless `more` names some."""
    return harness(*TABLE, *more, **options)


@pytest.mark.parametrize(("encoding", "sign"), [("ascii", r"\xb1"), ("latin-1", "±")])
def test_an_output_that_is_not_utf8_gets_escapes(encoding: str, sign: str) -> None:
    done = table("--results", "results", env=os.environ | {"PYTHONIOENCODING": encoding}, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sign in done.stdout.decode(encoding)


def test_json_is_whole_in_every_encoding() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = table("--format", "json", env=environment, stdout=subprocess.PIPE)
    assert json.loads(done.stdout.decode("ascii"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the platform has no /dev/full")
@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_a_full_disk_is_said_in_one_line(command: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = harness(*command, stdout=full)
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: standard output: cannot be written (No space left on device)")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_a_reader_that_is_gone_ends_the_command_quietly(command: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = harness(*command, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("closed", [(1,), (0, 1), (0, 1, 2)])
def test_a_closed_stream_is_no_failure(closed: tuple[int, ...], tmp_path: Path) -> None:
    # A file that is written would take the number of a stream that stayed closed.
    shell = '"$0" -m harness readme --results "$1" ' + " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", shell, sys.executable, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "README.md").read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("command", [pytest.param("methods", marks=pytest.mark.slow), "table"])
def test_a_table_for_a_closed_output_is_no_failure(command: str) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m harness "$1" >&-', sys.executable, command], cwd=ROOT, check=False, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_output_that_reaches_the_command_line_ends_it_quietly(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def unread(**options: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("harness.cli.app", unread)
    monkeypatch.setattr("harness.streams.abandon_output", lambda: None)  # this process goes on
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 141 and capfd.readouterr().err == ""
