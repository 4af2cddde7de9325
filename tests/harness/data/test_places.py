"""Where the data of a task is looked for, and in which order."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import Queue
from threading import Event

import pytest

from harness import hub
from harness.data import places
from harness.data.places import fetch_data, find_data, find_or_fetch_data, kept_folder
from harness.errors import UserError
from harness.streams import Say
from tests.command_line import Run


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without data and without a network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PEFT_VL_BENCH_DATA", raising=False)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)


def put(folder: Path) -> Path:
    """Put annotations into a folder."""
    folder.mkdir(parents=True)
    (folder / "problems.json").write_text("{}")
    return folder


def test_the_named_folder_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_data("scienceqa") is None
    kept = put(kept_folder("scienceqa"))
    assert find_data("scienceqa") == kept
    monkeypatch.setenv("PEFT_VL_BENCH_DATA", str(tmp_path / "named"))
    assert find_data("scienceqa") == kept
    named = put(tmp_path / "named" / "scienceqa")
    assert find_data("scienceqa") == named
    assert find_or_fetch_data("scienceqa", lambda line: None) == named


def test_a_named_folder_without_the_data_is_not_passed_over_in_silence(
    call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, said = put(kept_folder("scienceqa")), list[str]()
    assert find_or_fetch_data("scienceqa", said.append) == kept and not said
    monkeypatch.setenv("PEFT_VL_BENCH_DATA", str(tmp_path / "named"))
    line = f"PEFT_VL_BENCH_DATA: {tmp_path / 'named'} has no scienceqa/problems.json; looking in {kept}"
    assert find_or_fetch_data("scienceqa", said.append) == kept and said == [line]
    dry = call("run", "--model", "7b", "--methods", "memvp", "--dry-run")
    assert line in dry.out.splitlines()
    put(tmp_path / "named" / "scienceqa")
    assert find_or_fetch_data("scienceqa", said.append) == tmp_path / "named" / "scienceqa" and said == [line]


def test_what_is_nowhere_is_fetched_into_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    place = replace(places.PLACES["scienceqa"], fetch=lambda folder, say: (put(folder), say("fetched"), None)[-1])
    monkeypatch.setattr(places, "PLACES", {"scienceqa": place})
    said: list[str] = []
    assert find_or_fetch_data("scienceqa", said.append) == kept_folder("scienceqa")
    assert find_or_fetch_data("scienceqa", said.append) == kept_folder("scienceqa")
    assert said == ["fetched"]


def test_a_run_waits_for_a_fetch_and_takes_what_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = Event(), Event()

    def fetch(folder: Path, say: Say) -> None:
        begun.set()
        assert go_on.wait(timeout=60)
        put(folder)

    place = replace(places.PLACES["scienceqa"], fetch=fetch)
    monkeypatch.setattr(places, "PLACES", {"scienceqa": place})
    said: Queue[str] = Queue()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(fetch_data, "scienceqa", kept_folder("scienceqa"), lambda line: None)
        assert begun.wait(timeout=60)
        second = threads.submit(find_or_fetch_data, "scienceqa", said.put)
        try:
            assert "waiting for it" in said.get(timeout=60)
        finally:
            go_on.set()
        first.result(timeout=60)
        assert second.result(timeout=60) == kept_folder("scienceqa")


def test_images_are_linked_where_the_data_is_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--images .*: only for coco; leave it out"):
        fetch_data("scienceqa", tmp_path / "new", lambda line: None, tmp_path)


def test_without_a_network_it_is_said_what_is_missing() -> None:
    with pytest.raises(UserError, match=r"not on this machine: ScienceQA .*CC BY-NC-SA 4\.0.*data fetch scienceqa"):
        find_or_fetch_data("scienceqa", lambda line: None)
    assert not kept_folder("scienceqa").exists()


def test_data_that_is_here_needs_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = put(tmp_path / "named" / "scienceqa")
    monkeypatch.setenv("PEFT_VL_BENCH_DATA", str(tmp_path / "named"))
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no folder"))
    assert find_or_fetch_data("scienceqa", lambda line: None) == named


def test_the_folder_of_a_fetch_is_printed_as_visible_text(
    call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = replace(places.PLACES["scienceqa"], fetch=lambda folder, say: None)
    monkeypatch.setattr(places, "PLACES", {"scienceqa": place})
    done = call("data", "fetch", "scienceqa", "--data-root", tmp_path / "a\x1b[2Jb")
    assert done.code == 0 and done.out == f"{tmp_path}/a\\x1b[2Jb\n"
