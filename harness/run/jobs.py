"""Runs side by side on one machine: worker processes that each make one run after another."""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.config.plan import RunPlan
from harness.errors import UserError
from harness.run.attempt import Attempt, Wanted, record_death
from harness.run.messages import ReceivedProgress
from harness.run.progress import SweepProgress
from harness.run.setup import Setup
from harness.run.worker import GRACE_S, work
from harness.run.worker_start import worker_context
from harness.stopping import Stopped, signal_of, signals_blocked

Report = Callable[[RunPlan, Attempt], None]
"""Called with what became of a run."""


class _Worker:
    """A worker process, and the run that it makes.

    Args:
        make_setup: loads what the runs need.
        threads: compute threads of a run.
    """

    def __init__(self, make_setup: Callable[[], Setup], threads: int) -> None:
        context = worker_context()
        self.connection: Connection[Any, Any]
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, make_setup, threads, dict(os.environ)))
        # A signal would end a process that cannot answer it yet with a traceback.
        with signals_blocked():
            self.process.start()
        # Now it alone holds its end, so the connection breaks when it ends.
        theirs.close()
        self.wanted: Wanted | None = None
        self.begun = datetime.now(UTC)
        self._progress: ReceivedProgress | None = None

    def give(self, wanted: Wanted, shown: SweepProgress) -> None:
        """Hand it the run that it makes next. It may have died already; then there is nothing to receive from it."""
        self.wanted, self._progress = wanted, ReceivedProgress(wanted.plan.name, shown)
        self.begun = datetime.now(UTC)
        try:
            self.connection.send(wanted)
        except OSError:
            return

    def receive(self) -> Attempt | None:
        """Receive one message and show it, if it is about progress.

        Returns:
            What became of its run; None while it is being made.

        Raises:
            EOFError: the process has ended.
            UserError: something that must end the sweep.
        """
        assert self._progress is not None, "a worker without a run sends nothing"
        try:
            message = self.connection.recv()
        except OSError as error:
            raise EOFError from error
        if isinstance(message, UserError):
            raise message
        if isinstance(message, Attempt):
            self.end_run()
            return message
        self._progress.receive(message)
        return None

    def end_run(self) -> None:
        """Show its run no longer."""
        if self._progress is not None:
            self._progress.end()
        self.wanted = self._progress = None

    @property
    def makes_run(self) -> bool:
        """Whether the run that it was given has begun and not ended."""
        return self._progress is not None and self._progress.begun

    def stop(self, signum: int) -> None:
        """Begin to end the process: with a signal if it makes a run, whose record it then writes."""
        if not self.makes_run:
            self.process.kill()
        elif self.process.is_alive():
            os.kill(self.process.pid or 0, signum)
        self.connection.close()

    def death(self) -> str:
        """Return how the process ended, in a line for the record of its run."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"its process ended with status {code}"
        name = signal.Signals(-code).name
        hint = "; if the machine ran out of memory, give a smaller --jobs" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"


def run_side_by_side(
    jobs: int,
    runs: Sequence[Wanted],
    make_setup: Callable[[], Setup],
    setup: Setup,
    threads: int,
    shown: SweepProgress,
    report: Report,
) -> None:
    """Make runs in worker processes. One whose process dies has failed, and the others go on.

    So has one whose process cannot load what it needs, unless no run has begun yet: then the others could not either.

    Args:
        jobs: number of processes.
        runs: the runs.
        make_setup: loads what the runs need in a worker; it is sent there.
        setup: the same here, to record runs whose process died.
        threads: compute threads of a run.
        shown: shows the progress.
        report: called with what became of each run, in the order in which they end.

    Raises:
        UserError: something that must end the sweep; the runs that were being made are recorded as interrupted.
        KeyboardInterrupt: a signal stopped the sweep, or nobody reads its output any more; likewise.
    """
    waiting = deque(runs)
    workers: list[_Worker] = []
    signum = int(signal.SIGTERM)
    has_begun = False

    def lost(worker: _Worker, how: str) -> Attempt:
        wanted = worker.wanted
        assert wanted is not None, "it had a run"
        workers.remove(worker)
        worker.end_run()
        worker.process.join()
        return record_death(setup, wanted, how, worker.begun)

    try:
        while waiting or any(worker.wanted for worker in workers):
            while waiting and (idle := _idle(workers, jobs, lambda: _Worker(make_setup, threads))):
                idle.give(waiting.popleft(), shown)
            busy = {worker.connection: worker for worker in workers if worker.wanted}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]  # wait() returns the connections that it was given
                wanted = worker.wanted
                assert wanted is not None, "it is busy"
                try:
                    ended = worker.receive()
                except EOFError:
                    ended = lost(worker, worker.death())
                except UserError as error:  # its process could not load what it needs, and ends
                    if not has_begun:
                        raise
                    ended = lost(worker, str(error))
                has_begun = has_begun or worker.makes_run or ended is not None
                if ended is None:
                    continue
                report(wanted.plan, ended)
                if ended.record is None:
                    waiting.append(wanted.later())
    except BrokenPipeError as pipe:
        raise Stopped(signal.SIGPIPE) from pipe
    except KeyboardInterrupt as stop:
        signum = signal_of(stop)
        raise
    finally:
        _stop(workers, signum, setup)


def _idle(workers: list[_Worker], jobs: int, start: Callable[[], _Worker]) -> _Worker | None:
    """Return a worker that makes no run, a new one where there may be more; None if all are busy."""
    for worker in workers:
        if worker.wanted is None:
            return worker
    if len(workers) == jobs:
        return None
    workers.append(start())
    return workers[-1]


def _stop(workers: Sequence[_Worker], signum: int, setup: Setup) -> None:
    """End all workers. One that makes a run first writes its record; if it cannot, the run is recorded here."""
    for worker in workers:
        worker.stop(signum)
    deadline = time.monotonic() + GRACE_S
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        in_time = not worker.process.is_alive()
        worker.process.kill()
        worker.process.join()
        if worker.wanted is not None and worker.makes_run:
            name = signal.Signals(signum).name
            late = f"interrupted by {name}, but its process did not end within {GRACE_S:.0f} s and was killed"
            record_death(setup, worker.wanted, worker.death() if in_time else late, worker.begun)
        worker.end_run()
