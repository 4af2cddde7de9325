"""The lock of a run: one holder at a time, and none after its process has ended."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.run.lock import owner_of, run_lock

HOLD = """
import sys, time
from pathlib import Path
from harness.run.lock import run_lock
with run_lock(Path(sys.argv[1])) as is_ours:
    print(is_ours, flush=True)
    time.sleep(60)
"""


def test_a_free_lock_is_ours_and_says_so(tmp_path: Path) -> None:
    with run_lock(tmp_path / "run") as is_ours:
        assert is_ours
        assert owner_of(tmp_path / "run").endswith(f"process {os.getpid()}, last progress 0:00:00 ago")


def test_a_held_lock_is_not_ours_until_its_holder_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    with run_lock(tmp_path) as is_ours:
        assert not is_ours
    assert owner_of(tmp_path).startswith(f"{socket.gethostname()}, process {holder.pid}, last progress 0:00:0")
    holder.kill()
    holder.wait()
    with run_lock(tmp_path, wait_s=60) as is_ours:
        assert is_ours


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"), run_lock(tmp_path / "file" / "run"):
        pass


def test_a_folder_that_is_removed_again_and_again_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def removed(*arguments: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr("harness.run.lock.acquire", removed)
    with pytest.raises(UserError, match="cannot be made"), run_lock(tmp_path / "run"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has no flock")
def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_flock(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", no_flock)
    with pytest.raises(UserError, match="cannot be locked"), run_lock(tmp_path / "run"):
        pass


def test_an_owner_that_cannot_be_read_is_just_another_process(tmp_path: Path) -> None:
    (tmp_path / "owner.json").write_text("[]")
    assert owner_of(tmp_path) == "another process"
