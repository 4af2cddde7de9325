"""One file from a stand-in for the network, and what is shown of its progress."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session, disable_progress_bars

from harness import transfer
from harness.transfer import complete_file
from tests.standin_hub import Repository, hub_on_this_machine, use

CONTENT = bytes(1_000_000)
NAME = "big\x1b[2J.bin"
"""What a hub may call a file: a terminal would be cleared."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a file of 1 MB, of which four parts arrive one by one."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "big.bin").write_bytes(CONTENT)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", len(CONTENT) // 4)
    with hub_on_this_machine() as served:
        served.models["some/model"] = Repository(tmp_path / "model")
        use(served.address, tmp_path / "cache", monkeypatch)
        yield f"{served.address}/some/model/resolve/main/big.bin"
    close_session()


def test_no_terminal_gets_lines_with_bytes_and_the_time_left(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transfer, "LOG_SECONDS", 0)
    complete_file(address, tmp_path / "file", len(CONTENT), NAME)
    assert (tmp_path / "file").read_bytes() == CONTENT
    lines = capsys.readouterr().err.splitlines()
    form = r"big\\x1b\[2J\.bin: +(\d+)%\|.*\| \S+/1\.00M \[\d\d:\d\d<\d\d:\d\d, +\S+B/s\]"
    shares = [int(found[1]) for line in lines if (found := re.fullmatch(form, line))]
    assert len(shares) == len(lines) and {25, 50, 75, 100} <= set(shares)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("more", [0, 1])
def test_a_file_with_more_than_the_content_is_begun_anew(known: bool, more: int, address: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes([1]) * (len(CONTENT) + more))
    complete_file(address, tmp_path / "file", len(CONTENT) if known else None, NAME)
    # As many bytes as there should be are not asked for again; the caller finds that they are others.
    assert ((tmp_path / "file").read_bytes() == CONTENT) == (not known or more > 0)


def test_no_terminal_gets_few_lines(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disable_progress_bars()  # as loading a model does
    complete_file(address, tmp_path / "file", len(CONTENT), NAME)
    (line,) = capsys.readouterr().err.splitlines()
    assert "100%" in line


def test_a_terminal_gets_a_bar_that_cannot_act_on_it(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    complete_file(address, tmp_path / "file", len(CONTENT), NAME)
    shown = capsys.readouterr().err
    assert "\r" in shown and "big\\x1b[2J.bin: 100%" in shown and "\x1b[2J" not in shown
