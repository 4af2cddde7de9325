"""A process that makes runs for another one, which hands them out and shows their progress; see `harness.run.jobs`."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness.config.plan import RunPlan
from harness.errors import UserError
from harness.run.attempt import attempt
from harness.run.progress import Progress
from harness.run.runner import Runner
from harness.stopping import stop_on_signals, unblock_signals

GRACE_S = 60.0
"""Seconds that a process has to write the record of a stopped run before it is ended."""

BEGIN = "begin"
"""The message that a run begins. The messages after it are calls of its `Progress`, as name and arguments."""


class SentProgress:
    """The progress of a run, sent to the process that shows it; see `Progress`.

    Args:
        connection: to that process.
    """

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection

    def plan(self, phases: Mapping[str, int]) -> None:
        """See `Progress.plan`."""
        self._send("plan", phases)

    def start(self, phase: str, total: int) -> None:
        """See `Progress.start`."""
        self._send("start", phase, total)

    def advance(self, done: int, note: str = "") -> None:
        """See `Progress.advance`."""
        self._send("advance", done, note)

    def say(self, line: str) -> None:
        """See `Progress.say`."""
        self._send("say", line)

    def _send(self, *call: Any) -> None:
        _send(self._connection, call)


def work(connection: "Connection[Any, Any]", make_runner: Callable[[], Runner], threads: int, force: bool) -> None:
    """Make the runs that come through a connection, until it is closed or a signal stops the process.

    Args:
        connection: brings runs as a plan and whether to wait for other processes; takes `BEGIN` and calls of `Progress`
            during a run, and an `Attempt` after it, or a `UserError` that must end the sweep.
        make_runner: loads what the runs need.
        threads: compute threads of torch.
        force: repeat runs that are recorded.
    """

    @contextmanager
    def begin() -> Iterator[Progress]:
        _send(connection, (BEGIN,))
        yield SentProgress(connection)

    # A run that a signal stops writes its record before it raises KeyboardInterrupt.
    with suppress(KeyboardInterrupt), stop_on_signals(once=True):
        unblock_signals()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        torch.set_num_threads(threads)
        try:
            runner = make_runner()
            for plan, wait in _received(connection):
                _send(connection, attempt(runner, plan, force, wait, begin))
        except UserError as error:
            _send(connection, error)


def _send(connection: "Connection[Any, Any]", message: object) -> None:
    # Nobody listens once the other process has ended or stops this one. Either way a signal follows.
    with suppress(OSError):
        connection.send(message)


def _received(connection: "Connection[Any, Any]") -> Iterator[tuple[RunPlan, bool]]:
    """Yield what comes through a connection until it is closed."""
    with suppress(EOFError, OSError):
        while True:
            yield connection.recv()


def _end_with_parent() -> None:
    """Stop this process as a signal would when the process that started it has ended, however that ended."""
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    if hasattr(signal, "pthread_kill"):  # not on Windows
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGHUP)
        time.sleep(GRACE_S)
    os._exit(1)
