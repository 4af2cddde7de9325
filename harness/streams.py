"""Standard output and standard error, which may have another encoding than UTF-8, be full, or be closed."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from harness.errors import UserError
from harness.escape import message, visible

Say = Callable[[str], None]
"""Called with a line for the user."""


def prepare_streams() -> None:
    """Let standard output and standard error print what their encoding lacks as escapes, such as `\\xb1` for ±.

    A stream that is closed, as with `>&-`, prints nowhere. If it stayed so, the next file to be opened would take its
    place, and be printed to.
    """
    # In this order, because a file that is opened takes the lowest free number.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # open until Python ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_result(text: str, end: str = "\n") -> None:
    """Print the result of a command to standard output, and see that it arrives.

    Raises:
        UserError: the output cannot be written, for instance to a full disk.
        SystemExit: nobody reads the output any more, as behind `| head`.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        end_unread()
    except OSError as error:
        abandon_output()
        raise UserError(f"standard output: cannot be written ({error.strerror}); send it somewhere else") from error


def print_error(text: str) -> None:
    """Print one line to standard error: what stops the command."""
    with contextlib.suppress(OSError):  # the exit status still says it
        print(f"error: {message(text)}", file=sys.stderr, flush=True)


def say_on_stderr(line: str) -> None:
    """Print a line to standard error."""
    print(visible(line), file=sys.stderr, flush=True)


def end_unread() -> NoReturn:
    """End the command because nobody reads its output any more, with the exit status of the signal that says so."""
    abandon_output()
    raise SystemExit(128 + signal.SIGPIPE)


def abandon_output() -> None:
    """Send further output nowhere, so that what is still buffered raises no second error when Python ends."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
