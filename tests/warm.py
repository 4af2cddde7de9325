"""Start `python -m harness` without waiting for its imports.

The process is forked from one that has imported what a run needs and computed nothing. That one is a new interpreter,
which has none of what the tests did. What is forked runs `harness/__main__.py` as Python would, so it differs from
`python -m harness` in two ways only: its imports are quick, and its parent is the process that it was forked from.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

ROOT = Path(__file__).parents[1]
IMPORTED = ["harness.cli", "harness.commands.run", "open_clip", "transformers.models.llama.modeling_llama"]
_LONGEST_REQUEST = 2**16


class WarmProcess:
    """A process that was forked, with the members of `subprocess.Popen` that the tests use.

    Args:
        arguments: the arguments of `python -m harness`.
        environment: all variables of its environment. Libraries that read one while they are imported do not see it.
        own_group: whether it leads a process group.

    Attributes:
        pid: the number of the process.
        stdout: what it prints, errors included.
        returncode: its exit status, minus the number of the signal that ended it, or None while it runs.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], own_group: bool) -> None:
        reading, writing = os.pipe()
        asked = {"arguments": list(arguments), "environment": dict(environment), "own_group": own_group}
        try:
            self.pid: int = _ask(asked, writing)
        finally:
            os.close(writing)
        self.stdout: TextIO = os.fdopen(reading)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        if self.returncode is None:
            self.returncode = _ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait until the process has ended and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a process forked by tests/warm.py", timeout)
            time.sleep(0.02)
        return code

    def communicate(self, timeout: float = 600) -> tuple[str, None]:
        """Return what the process prints until its end. The time is counted from the end of the output."""
        out = self.stdout.read()
        self.wait(timeout)
        return out, None

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stdout.close()
        self.wait(60)


@cache
def _origin() -> socket.socket:
    """Start the process that others are forked from, and return a connection to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.warm", str(theirs.fileno())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()])
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait(60)

    atexit.register(end)
    return ours


def _ask(request: dict[str, Any], *descriptors: int) -> Any:
    """Send a request to that process, with open files, and return its answer."""
    connection = _origin()
    text = json.dumps(request).encode()
    assert len(text) < _LONGEST_REQUEST
    socket.send_fds(connection, [text], descriptors)
    answer = connection.recv(_LONGEST_REQUEST)
    assert answer, "the process that others are forked from has ended"
    return json.loads(answer)


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Answer requests. Return in a forked process with what it has to do, and with None where nobody asks any more."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(connection, _LONGEST_REQUEST, 1)
        if not text:
            return None
        request: dict[str, Any] = json.loads(text)
        if "ended" in request:
            pid, status = os.waitpid(request["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                os.dup2(descriptors[0], 1)
                os.dup2(descriptors[0], 2)
            os.close(descriptors[0])
            if answer == 0:
                return request
        connection.send(json.dumps(answer).encode())


def _main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # so that a process does not copy what its garbage collector only looks at
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        asked = _serve(connection)
    if asked is not None:
        if asked["own_group"]:
            os.setsid()
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = ["harness", *asked["arguments"]]
        sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
        runpy.run_module("harness", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
