"""Signals that end a run: each becomes an exception, so that the run can still write its record."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import parent_process
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that end a process by default and that a run can answer. Windows has no SIGHUP.

One that is ignored stays so: `nohup` starts a command in this way, and so does a shell in the background of a script.
"""


class Stopped(KeyboardInterrupt):
    """The process was asked to stop.

    Attributes:
        signum: number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def signal_of(stop: KeyboardInterrupt) -> int:
    """Return the number of the signal that stopped a process."""
    return stop.signum if isinstance(stop, Stopped) else signal.SIGINT


def exit_status(stop: KeyboardInterrupt) -> int:
    """Return 128 + the signal's number, as shells report it."""
    return 128 + signal_of(stop)


def _handlers() -> dict[int, Any]:
    """Return the handlers of `SIGNALS`, without those that are ignored."""
    found = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: handler for number, handler in found.items() if handler != signal.SIG_IGN}


def _put_back(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def stop_on_signals(*, once: bool = False) -> Iterator[None]:
    """Raise `Stopped`, or for SIGINT KeyboardInterrupt, on the first signal.

    Outside the main thread, where Python sets no handlers, signals keep their meaning.

    Args:
        once: whether further signals are ignored; otherwise a second one ends the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if once:
            ignore_signals()
        else:
            _put_back(dict.fromkeys(before, signal.SIG_DFL))
        raise KeyboardInterrupt if signum == signal.SIGINT else Stopped(signum)

    before = _handlers()
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        _put_back(before)


def ignore_signals() -> None:
    """Ignore the signals that end a process, until the surrounding `stop_on_signals` is left."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_held_back(*, once: bool = False) -> Iterator[list[int]]:
    """Let a stop take effect only when the context is left.

    Args:
        once: whether further signals are ignored; otherwise a second one takes effect at once.

    Yields:
        The numbers of the signals that are held back. The first one takes effect if it is one of `SIGNALS`, also where
        the body has added it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    before = _handlers()
    pending: list[int] = []

    def hold(signum: int, frame: FrameType | None) -> None:
        pending.append(signum)
        if not once:
            _put_back(before)

    for number in before:
        signal.signal(number, hold)
    stopped = False
    try:
        yield pending
    except KeyboardInterrupt:
        stopped = not once  # by the second signal
        raise
    finally:
        if once or not pending:
            _put_back(before)
        if pending and not stopped and pending[0] in SIGNALS:
            signal.raise_signal(pending[0])


@contextmanager
def signals_blocked(signals: Sequence[signal.Signals] = SIGNALS) -> Iterator[None]:
    """Keep signals back; a process that is started meanwhile gets them when it calls `unblock_signals`."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Let signals through that the process which started this one kept back."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_with_parent(before: Callable[[], None] = lambda: None) -> None:
    """End this process, which multiprocessing has started, when its parent has ended, however that ended.

    Args:
        before: called first, in a thread of its own.
    """
    parent = parent_process()
    assert parent is not None, "a process that multiprocessing has started has a parent"

    def follow() -> None:
        parent.join()
        before()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
