"""A stop of several processes, seen from one of them; `test_processes.py` stops real ones."""

import signal
from typing import Any

import pytest

from harness.processes import ALONE, Processes
from harness.run.stop import StopAgreed, TrainingStop
from harness.stopping import Stopped, stop_on_signals


class Two(Processes):
    """Two processes. The other one was asked to stop if `other` says so."""

    other: list[int] = []  # noqa: RUF012  # set by a test on its own class

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other if isinstance(value, list) else bool(self.other)]


class OtherStopped(Two):
    """Two processes of which the other one got a signal."""

    other = [int(signal.SIGTERM)]  # noqa: RUF012


def test_a_process_without_a_signal_stops_with_the_other() -> None:
    kept: list[str] = []
    with pytest.raises(Stopped) as stopped, stop_on_signals(once=True):
        with TrainingStop(OtherStopped(0, 2)).during_training(lambda: kept.append("checkpoint")):
            raise StopAgreed
        pytest.fail("training went on")
    assert stopped.value.signum == signal.SIGTERM and kept == ["checkpoint"]


def test_a_signal_after_the_last_step_keeps_it() -> None:
    kept: list[str] = []
    stop = TrainingStop(Two(0, 2))
    with pytest.raises(Stopped), stop_on_signals(once=True), stop.during_training(lambda: kept.append("checkpoint")):
        assert not stop.is_noted()
        for signum in (signal.SIGTERM, signal.SIGINT):
            with stop.during_step():
                signal.raise_signal(signum)
        assert stop.is_noted() and not kept
    assert kept == ["checkpoint"]


def test_a_closed_output_of_one_process_stops_both() -> None:
    kept: list[str] = []
    stop = TrainingStop(Two(0, 2))
    with stop_on_signals(once=True):
        with pytest.raises(Stopped) as stopped, stop.during_training(lambda: kept.append("checkpoint")):
            with stop.while_printing():
                raise BrokenPipeError
            assert stop.is_noted() and not kept
            raise StopAgreed
        signal.raise_signal(signal.SIGTERM)  # as a launcher does, when the other process has ended
    assert stopped.value.signum == signal.SIGPIPE and kept == ["checkpoint"]


def test_a_closed_output_from_before_training_is_not_forgotten() -> None:
    stop = TrainingStop(Two(0, 2))
    with stop.while_printing():
        raise BrokenPipeError
    with stop_on_signals(once=True), pytest.raises(Stopped), stop.during_training(lambda: None):
        assert stop.is_noted()
        raise StopAgreed


def test_a_closed_output_of_a_process_by_itself_ends_training_between_two_steps() -> None:
    stop = TrainingStop(ALONE)
    stop.leave_if_unread()
    with stop.while_printing():
        raise BrokenPipeError
    with pytest.raises(BrokenPipeError):
        stop.leave_if_unread()


def test_training_without_a_stop_keeps_nothing() -> None:
    with TrainingStop(Two(0, 2)).during_training(lambda: pytest.fail("nobody asked")):
        pass
