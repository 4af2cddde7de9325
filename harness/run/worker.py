"""A process that makes runs for another one, which hands them out and shows their progress; see `harness.run.jobs`."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness.errors import UserError
from harness.run.attempt import Wanted, attempt
from harness.run.messages import BEGIN, SentProgress
from harness.run.progress import Progress
from harness.run.setup import Setup
from harness.stopping import end_with_parent, stop_on_signals, unblock_signals

GRACE_S = 60.0
"""Seconds that a process has to write the record of a stopped run before it is ended."""


def work(
    connection: "Connection[Any, Any]", make_setup: Callable[[], Setup], threads: int, environment: Mapping[str, str]
) -> None:
    """Make the runs that come through a connection, until it is closed or a signal stops the process.

    Args:
        connection: brings each run as `Wanted`; takes a `Message` of each step of a run, and an `Attempt` after it, or
            a `UserError` that must end the sweep.
        make_setup: loads what the runs need.
        threads: compute threads of torch.
        environment: the variables of the process that hands out the runs. The one that this process was forked from may
            have been started with others.
    """
    os.environ.clear()
    os.environ.update(environment)

    @contextmanager
    def begin() -> Iterator[Progress]:
        _send(connection, BEGIN)
        yield SentProgress(partial(_send, connection))

    # A run that a signal stops writes its record before it raises KeyboardInterrupt.
    with suppress(KeyboardInterrupt), stop_on_signals(once=True):
        unblock_signals()
        end_with_parent(_stop)
        torch.set_num_threads(threads)
        try:
            setup = make_setup()
            for wanted in _received(connection):
                _send(connection, attempt(setup, wanted, begin))
        except UserError as error:
            _send(connection, error)


def _send(connection: "Connection[Any, Any]", message: object) -> None:
    # Nobody listens once the other process has ended or stops this one. Either way a signal follows.
    with suppress(OSError):
        connection.send(message)


def _received(connection: "Connection[Any, Any]") -> Iterator[Wanted]:
    """Yield what comes through a connection until it is closed."""
    with suppress(EOFError, OSError):
        while True:
            yield connection.recv()


def _stop() -> None:
    """Stop this process as a signal would, and give it time to write its record."""
    if hasattr(signal, "pthread_kill"):  # not on Windows
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(GRACE_S)
