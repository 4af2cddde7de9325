"""Signals that end a run: each becomes an exception, so that the run can still write its record."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")
"""Signals that end a process at once by default. SIGINT raises KeyboardInterrupt already; Windows has no SIGHUP."""


class Stopped(KeyboardInterrupt):
    """The process was asked to stop.

    Attributes:
        signum: number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def exit_status(stop: KeyboardInterrupt) -> int:
    """Return 128 + the signal's number, as shells report it."""
    return 128 + (stop.signum if isinstance(stop, Stopped) else signal.SIGINT)


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Stopped` on the first signal; a second one ends the process at once.

    Outside the main thread, where Python sets no handlers, signals keep their meaning.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        raise Stopped(signum)

    handled = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = [signal.signal(number, stop) for number in handled]
    try:
        yield
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
