"""Signals that end a run."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from harness.stopping import Stopped, stop_held_back, stop_on_signals

SPEED = ("speed", "--methods", "memvp", "--text-length", "16", "--steps", "100000", "--processes", "2")


def test_a_stop_takes_effect_when_the_section_ends() -> None:
    reached = []
    with pytest.raises(Stopped) as stop, stop_on_signals():
        with stop_held_back():
            signal.raise_signal(signal.SIGTERM)
            reached.append("end of the section")
        reached.append("after the section")
    assert stop.value.signum == signal.SIGTERM
    assert reached == ["end of the section"]


def test_a_second_signal_takes_effect_at_once() -> None:
    with pytest.raises(Stopped), stop_on_signals(), stop_held_back():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the second signal was held back too")


def test_a_stop_is_not_lost_when_the_section_fails() -> None:
    with pytest.raises(Stopped) as stop, stop_on_signals(), stop_held_back():
        signal.raise_signal(signal.SIGTERM)
        raise ValueError
    assert isinstance(stop.value.__context__, ValueError)


def test_further_signals_can_be_ignored_and_a_stop_can_be_passed_on() -> None:
    for signals in ([signal.SIGTERM, signal.SIGINT], []):
        reached = []
        with pytest.raises(Stopped) as stop, stop_on_signals(once=True):
            with stop_held_back(once=True) as held:
                for signum in signals:
                    signal.raise_signal(signum)
                assert held == signals
                held[:] = held or [signal.SIGTERM]  # as another process was told
                reached.append("end of the section")
                raise KeyboardInterrupt
            pytest.fail("the stop had no effect")
        assert stop.value.signum == signal.SIGTERM and reached == ["end of the section"]


def test_a_section_without_a_stop_changes_no_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_held_back():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no such signal")
def test_a_signal_that_is_ignored_stays_so() -> None:
    """As behind `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals(), stop_held_back() as held:
            signal.raise_signal(signal.SIGHUP)
            assert not held
        with stop_held_back(once=True) as held:
            signal.raise_signal(signal.SIGHUP)
            assert not held
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "processes", "signum"),
    [(SPEED, 1, signal.SIGKILL), (SPEED, 1, signal.SIGTERM), (("pretrain", "--out", "{tmp}/tiny"), 3, signal.SIGKILL)],
    ids=["speed killed", "speed stopped", "pretrain killed"],
)
def test_no_process_outlives_the_one_that_started_it(
    tmp_path: Path, command: tuple[str, ...], processes: int, signum: signal.Signals
) -> None:
    arguments = [part.format(tmp=tmp_path) for part in command]
    parent = psutil.Popen(
        [sys.executable, "-m", "harness", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    started: list[psutil.Process] = []
    try:
        while len(started) <= processes:  # one more keeps track of shared resources
            assert parent.poll() is None
            started = parent.children(recursive=True)
            time.sleep(0.1)
        parent.send_signal(signum)
        _, alive = psutil.wait_procs([parent, *started], timeout=30)
        assert not alive
    finally:
        for process in [parent, *started]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
