"""What a process that waits for a run learns of the one that makes it."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.records import read_records
from harness.run import attempt, heartbeat
from harness.run.heartbeat import beating
from harness.run.lock import LOCK_FILE, OWNER_FILE, owner_of
from harness.run.messages import Message, SentProgress
from tests.command_line import Run, quick_run


def test_every_report_is_passed_on_and_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / OWNER_FILE
    shown: list[Message] = []
    progress = beating(SentProgress(shown.append), file)
    progress.plan({"training": 8})  # there is no file yet, which stops nothing
    file.write_text('{"host": "here", "pid": 1}')
    os.utime(file, (0, time.time() - 3600))
    progress.start("training", 4, 2)
    assert owner_of(tmp_path) == "here, process 1, last progress 1:00:00 ago"  # the last beat was just now
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.0)
    progress.advance(1, "loss 1.0")
    assert owner_of(tmp_path) == "here, process 1, last progress 0:00:00 ago"
    assert shown == [("plan", {"training": 8}), ("start", "training", 4, 2), ("advance", 1, "loss 1.0")]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no flock")
def test_a_process_that_waits_for_another_one_says_so_now_and_then(
    call: Run, mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    arguments = [*quick_run(small_llm, small_clip, mini_set, tmp_path), "--methods", "memvp"]
    assert call(*arguments).code == 0
    (record,) = read_records(tmp_path)
    (adapter,) = (tmp_path / "adapters").glob("*/*/*/*")
    folder = tmp_path / "unfinished" / adapter.relative_to(tmp_path / "adapters")
    folder.mkdir(parents=True)
    lock = os.open(folder / LOCK_FILE, os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    asked: list[Path] = []

    def owner_until_the_third_time(folder: Path) -> str:
        asked.append(folder)
        if len(asked) == 3:
            os.close(lock)  # the other process ends
        return owner_of(folder)

    monkeypatch.setattr(attempt, "owner_of", owner_until_the_third_time)
    monkeypatch.setattr(attempt, "WAIT_S", 0.1)
    done = call(*arguments, "--force")
    assert done.code == 0 and "being made by another process; going on with the others" in done.out
    assert done.out.count("being made by another process; still waiting for it") == 2
    assert read_records(tmp_path)[0].created > record.created


def test_a_run_beats_in_its_workspace(
    call: Run, mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[Path] = []
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.0)
    monkeypatch.setattr(heartbeat, "os", SimpleNamespace(utime=beats.append))
    assert call(*quick_run(small_llm, small_clip, mini_set, tmp_path), "--methods", "memvp").code == 0
    assert len(beats) > 3 and {file.name for file in beats} == {OWNER_FILE}
    assert beats[0].is_relative_to(tmp_path / "unfinished")
