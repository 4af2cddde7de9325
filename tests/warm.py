"""Start `python -m harness` without waiting for its imports.

The process is forked from one that has imported what a run needs and computed nothing. That one is a new interpreter,
which has none of what the tests did. What is forked runs `harness/__main__.py` as Python would. It differs from
`python -m harness` mainly in three ways: its imports are quick, its parent is the process that it was forked from, and
at its end Python does not destroy all modules, which takes nearly two seconds.
"""

import atexit
import gc
import importlib
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self, TextIO

from harness.stopping import signals_blocked, unblock_signals

ROOT = Path(__file__).parents[1]
IMPORTED = ["harness.cli", "harness.commands.run", "open_clip", "transformers.models.llama.modeling_llama"]
_LENGTH = 4
"""Bytes before each message that say how long it is."""


class _Start(NamedTuple):
    """A process to start; see `WarmProcess`."""

    arguments: list[str]
    environment: dict[str, str]
    own_group: bool
    before: bytes


class WarmProcess:
    """A process that was forked, with the members of `subprocess.Popen` that the tests use.

    Args:
        arguments: the arguments of `python -m harness`.
        environment: all variables of its environment. Libraries that read one while they are imported do not see it.
        own_group: whether it leads a process group.
        log: a file to whose end it prints. None takes a pipe.
        before: what it calls first.

    Attributes:
        pid: the number of the process.
        stdout: what it prints, errors included; with `log`, that file from its beginning.
        returncode: its exit status, minus the number of the signal that ended it, or None while it runs.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        own_group: bool = False,
        log: Path | None = None,
        before: Callable[[], object] | None = None,
    ) -> None:
        if log is None:
            reading, writing = os.pipe()
        else:
            writing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            reading = os.open(log, os.O_RDONLY)
        self.stdout: TextIO = os.fdopen(reading, encoding="utf-8", errors="replace")
        try:
            self.pid: int = _ask(_Start(list(arguments), dict(environment), own_group, pickle.dumps(before)), writing)
        finally:
            os.close(writing)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        if self.returncode is None:
            self.returncode = _ask(self.pid)
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

    def terminate(self) -> None:
        """Ask the process to end, unless it has ended."""
        self.send_signal(signal.SIGTERM)

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
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    # By its own name, so that what is sent has the same types on both sides.
    command = [sys.executable, "-c", "from tests.warm import main; main()", str(theirs.fileno())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    with signals_blocked():  # what ends the tests must not end it before the processes that they still have to kill
        process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()])
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait(60)

    atexit.register(end)
    return ours


def _ask(request: _Start | int, *descriptors: int) -> Any:
    """Ask that process to start one, whose number it answers, or how one of that number has ended."""
    connection = _origin()
    try:
        _send(connection, request, *descriptors)
        answer, _ = _receive(connection)
    except BaseException:
        _origin.cache_clear()  # or else the next request could get the answer of this one
        raise
    return answer


def _send(connection: socket.socket, message: Any, *descriptors: int) -> None:
    content = pickle.dumps(message)
    socket.send_fds(connection, [len(content).to_bytes(_LENGTH)], descriptors)
    connection.sendall(content)


def _receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """Return a message and the open files that came with it.

    Raises:
        EOFError: the other process has ended.
    """
    length, descriptors, _, _ = socket.recv_fds(connection, _LENGTH, 1)
    content = b""
    while length and len(content) < int.from_bytes(length) and (part := connection.recv(2**16)):
        content += part
    if not content:
        raise EOFError
    return pickle.loads(content), descriptors


def serve(connection: socket.socket) -> _Start | None:
    """Answer requests. Return in a forked process with what it has to do, and with None where nobody asks any more."""
    while True:
        try:
            request, descriptors = _receive(connection)
        except EOFError:
            return None
        if isinstance(request, int):
            pid, status = os.waitpid(request, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                os.dup2(descriptors[0], 1)
                os.dup2(descriptors[0], 2)
            os.close(descriptors[0])
            if answer == 0:
                assert isinstance(request, _Start)
                return request
        _send(connection, answer)


def main() -> None:
    """Import, answer requests, and in a forked process run the command line."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # so that a process does not copy what its garbage collector only looks at
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        start = serve(connection)
    if start is None:
        os._exit(0)
    unblock_signals()
    if start.own_group:
        os.setsid()
    os.environ.clear()
    os.environ.update(start.environment)
    sys.argv = ["harness", *start.arguments]
    sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
    _exit_after(partial(_run, pickle.loads(start.before)))


def _run(before: Callable[[], object] | None) -> None:
    if before is not None:
        before()
    runpy.run_module("harness", run_name="__main__", alter_sys=True)


def _exit_after(call: Callable[[], None]) -> NoReturn:
    """Call a function and end this process as Python does, without destroying what is left."""
    status = 0
    try:
        call()
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    os._exit(status)
