"""A campaign finds what is bad and nothing else, and goes on where it was interrupted."""

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from harness.errors import UserError
from tests.fuzz import __main__ as command
from tests.fuzz import campaign, tally
from tests.fuzz.campaign import Case, attempts
from tests.fuzz.kind import Kind
from tests.fuzz.kinds import KINDS


def _make(folder: Path) -> None:
    (folder / "file").write_text("valid")


def _change(folder: Path, chance: random.Random) -> str:
    (folder / "file").write_text(str(chance.random()))
    return "file"


def _tried(use: Callable[[Path], object], folder: Path, patch: pytest.MonkeyPatch) -> Case:
    (case,) = _all_tried(use, folder, patch, [0])
    return case


def _all_tried(
    use: Callable[[Path], object], folder: Path, patch: pytest.MonkeyPatch, seeds: Sequence[int]
) -> list[Case]:
    patch.setitem(KINDS, "probe", Kind(_make, use, _change))
    source, scratch = folder / "source", folder / "scratch"
    for place in (source, scratch):
        place.mkdir()
    _make(source)
    return list(attempts("probe", source, scratch, seeds))


def _compute(seconds: float) -> None:
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        pass


def test_the_time_of_a_case_is_what_it_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def use(folder: Path) -> None:
        _compute(0.3)
        time.sleep(1)

    case = _tried(use, tmp_path, monkeypatch)
    assert case.outcome == "passed"
    assert 0.3 <= case.seconds < 1


def test_a_case_that_waits_for_ever_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_WAIT_S", 0.5)
    case = _tried(lambda folder: time.sleep(600), tmp_path, monkeypatch)
    assert (case.outcome, case.detail) == ("uncaught", "the process waited and computed nothing")


def test_a_case_that_computes_for_ever_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_KILL_S", 1)
    case = _tried(lambda folder: _compute(600), tmp_path, monkeypatch)
    assert case.outcome == "uncaught"
    assert case.seconds == pytest.approx(1, abs=0.5)


def test_a_case_that_takes_much_memory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "LARGE_BYTES", 10**8)
    case = _tried(lambda folder: bytes([1]) * 150_000_000, tmp_path, monkeypatch)
    assert case.is_bad
    assert case.extra_bytes == pytest.approx(150e6, rel=0.2)


def test_a_case_that_ends_its_process_ends_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def use(folder: Path) -> None:
        if folder.name in ("0", "2"):
            os._exit(3)

    cases = _all_tried(use, tmp_path, monkeypatch, range(4))
    assert [(case.seed, case.outcome) for case in cases] == [
        (0, "uncaught"),
        (1, "passed"),
        (2, "uncaught"),
        (3, "passed"),
    ]
    assert cases[0].detail == "the process ended with status 3"


def test_the_memory_of_a_case_is_not_that_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_MUCH_BYTES", 10**8)
    large, small = _all_tried(
        lambda folder: bytes([1]) * (50_000_000, 150_000_000)[folder.name == "0"], tmp_path, monkeypatch, range(2)
    )
    assert large.extra_bytes == pytest.approx(150e6, rel=0.2)
    assert small.extra_bytes == pytest.approx(50e6, rel=0.2)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The inputs that a campaign of two kinds tries, instead of trying them."""
    found: list[tuple[str, int]] = []

    def attempts(kind: str, source: Path, scratch: Path, seeds: Sequence[int]) -> Iterator[Case]:
        for seed in seeds:
            found.append((kind, seed))
            yield Case(seed, "file", "refused" if seed % 3 else "passed", "", 0.5, 0)

    monkeypatch.setattr(command, "_BLOCK", 2)
    monkeypatch.setattr(command, "prepare", lambda kind, folder: folder)
    monkeypatch.setattr(command, "attempts", attempts)
    for kind in ("a", "b"):
        monkeypatch.setitem(KINDS, kind, Kind(_make, _make, _change))
    return found


def _table(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.split("\n\n")[-1]


def test_an_interrupted_campaign_goes_on(
    tried: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ["--kinds", "a", "b", "--count", "5"]
    assert command.main(whole) == 0
    uninterrupted, expected = _table(capsys), list(tried)
    tried.clear()

    attempts = command.attempts

    def stop_at(kind: str, source: Path, scratch: Path, seeds: Sequence[int]) -> Iterator[Case]:
        for case in attempts(kind, source, scratch, seeds):
            if (kind, case.seed) == ("b", 3):
                raise KeyboardInterrupt
            yield case

    state = ["--state", str(tmp_path / "state.jsonl")]
    command.main(["--kinds", "a", "--count", "3", *state])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(command, "attempts", stop_at)
        command.main([*whole, *state])
    assert command.main([*whole, *state]) == 0
    assert _table(capsys) == uninterrupted
    assert tried == [*expected[:9], *expected[7:]]


def test_a_bad_case_is_still_shown_by_the_next_call(
    tried: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaign, "SLOW_S", 0.1)
    for _ in range(2):
        assert command.main(["--kinds", "a", "--count", "1", "--state", str(tmp_path / "state.jsonl")]) == 1
        assert "a, seed 0: 'file': passed, 0.5 s" in capsys.readouterr().out
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("change", "said"), [({"code": "0"}, "is of other code"), ({"tries": 1}, "is not a file of this")]
)
def test_another_state_is_refused(
    change: dict[str, object], said: str, tried: list[tuple[str, int]], tmp_path: Path
) -> None:
    path = tmp_path / "state.jsonl"
    command.main(["--kinds", "a", "--count", "1", "--state", str(path)])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=f"state.jsonl: {said}"):
        tally.State(path)
