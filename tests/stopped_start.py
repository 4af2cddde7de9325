"""A stop that comes in the moment in which a program is started."""

import signal
import subprocess
from typing import Any

import pytest

from harness.stopping import stop_on_signals


class StoppedStart(subprocess.Popen[Any]):
    """Starts a program and gets SIGTERM before its caller knows the program's process.

    Attributes:
        started: the processes that were started.
    """

    started: list[subprocess.Popen[Any]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.started.append(self)
        signal.raise_signal(signal.SIGTERM)


def check_none_outlives_a_stop(monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    """Check that a program which `call` starts has ended, where a stop comes while it is being started."""
    StoppedStart.started = []
    monkeypatch.setattr(subprocess, "Popen", StoppedStart)
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        call()
    (process,) = StoppedStart.started
    assert process.returncode is not None
