"""How a signal stops training: one process at the end of its optimiser step, several processes in the same step.

Several processes write a checkpoint together, so they have to leave training at the same point, although each of them
gets a signal at a moment of its own, or none at all. A signal is therefore only noted. What each process has noted is
exchanged with the sums of the next optimiser step. If one of them was asked to stop, none of them makes that step, and
they write the checkpoint of the steps before it. Output that nobody reads any more is noted in the same way.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from harness.processes import Processes
from harness.stopping import Stopped, ignore_signals, stop_held_back


class StopAgreed(BaseException):
    """One of several processes was asked to stop, and all of them know it. Training is between two steps."""


class TrainingStop:
    """The stop of one training.

    Args:
        processes: those that train together.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._noted: list[int] = []

    def is_noted(self) -> bool:
        """Return whether this process, one of several, was asked to stop. One by itself ends its step first."""
        return self._processes.count > 1 and bool(self._noted)

    def during_step(self) -> AbstractContextManager[object]:
        """Return the context of one optimiser step, which a stop of a process by itself waits for."""
        return stop_held_back() if self._processes.count == 1 else nullcontext()

    @contextmanager
    def while_printing(self) -> Iterator[None]:
        """Note that nobody reads the output of this process any more; for several, this is the same as a signal."""
        try:
            yield
        except BrokenPipeError:
            self._noted.append(signal.SIGPIPE)

    def leave_if_unread(self) -> None:
        """Leave training, between two steps, if this process is the only one and nobody reads its output any more.

        Raises:
            BrokenPipeError: this is so.
        """
        if self._processes.count == 1 and self._noted:
            raise BrokenPipeError

    @contextmanager
    def during_training(self, keep: Callable[[], None]) -> Iterator[None]:
        """Let several processes leave the body together when one of them is asked to stop.

        Further signals are ignored, because a launcher passes on what it gets, and a scheduler may signal both.

        Args:
            keep: writes a checkpoint. All processes call it, at the same point.

        Raises:
            KeyboardInterrupt: a signal or a closed output stopped one of the processes. The checkpoint is written.
        """
        if self._processes.count == 1:
            yield
            return
        try:
            earlier = self._noted
            with stop_held_back(once=True) as self._noted:
                self._noted += earlier
                try:
                    yield
                    if any(self._processes.gather(self.is_noted())):  # since the last exchange
                        raise StopAgreed
                except StopAgreed:
                    keep()
                    signums = [signum for noted in self._processes.gather(self._noted) for signum in noted]
                    self._noted[:] = self._noted or signums
                    raise Stopped(signums[0]) from None
        except Stopped as stop:
            if stop.signum == signal.SIGPIPE:
                # No signal has come, so none has made this process ignore those of a launcher that follow.
                ignore_signals()
            raise
