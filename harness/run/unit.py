"""One run as a unit of work, which an executor makes in a process on this or on another machine.

The process must see the same folders under the same names, its results folder included. It takes no decision: it must
come to the run that the submitting process has checked, or it makes none.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.run.attempt import Attempt, Wanted, attempt
from harness.run.cores import compute_threads
from harness.run.messages import BEGIN, MessageFile, SentProgress
from harness.run.progress import Progress
from harness.run.setup import Setup
from harness.run.workspace import Workspace
from harness.stopping import stop_on_signals, unblock_signals


@dataclass(frozen=True)
class Unit:
    """A run that is made where it is called.

    Attributes:
        make_setup: loads what the run needs.
        wanted: the run.
        spec_hash: its hash, as the submitting process found it.
        threads: compute threads of torch.
        folder: working directory of the submitting process, to which relative paths belong.
    """

    make_setup: Callable[[], Setup]
    wanted: Wanted
    spec_hash: str
    threads: int
    folder: Path

    def __call__(self) -> Attempt | UserError:
        """Make the run.

        Returns:
            What became of it, or what must end the sweep.

        Raises:
            KeyboardInterrupt: a signal stopped the run; its record is written.
        """
        host = socket.gethostname()
        try:
            os.chdir(self.folder)
        except OSError as error:
            reason = f"cannot be used on {host} ({error.strerror})"
            return UserError(f"{self.folder}: {reason}; start the command in a folder that all machines share")
        with stop_on_signals(once=True), compute_threads(self.threads):
            unblock_signals()  # Ray keeps back SIGINT, by which it cancels
            try:
                setup = self.make_setup()
                work = setup.workspace(self.wanted.plan)
                if work.spec_hash != self.spec_hash:
                    raise UserError(
                        f"{self.wanted.plan.name} is another run here ({work.spec_hash}) than where it was submitted "
                        f"({self.spec_hash}); give both machines the same data, weights and version"
                    )
                return attempt(setup, self.wanted, lambda: _written(work))
            except UserError as error:
                return UserError(f"{host}: {error}")


@contextmanager
def _written(work: Workspace) -> Iterator[Progress]:
    """Give the progress of a run, written into a file in its workspace."""
    file = MessageFile(work.messages)
    file.write(BEGIN)
    yield SentProgress(file.write)
