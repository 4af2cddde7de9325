"""The error that a user is meant to see, and the one-line reasons that go into its message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from harness.escape import visible

if TYPE_CHECKING:  # importing pydantic takes longer than printing `--help`
    from pydantic import ValidationError

_LONGEST_REASON = 200
_OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Parts of the messages of a GPU's libraries that allocate by themselves, such as for the graph of a captured pass."""


class UserError(Exception):
    """A mistake that the user can fix: a wrong option or file, or something that is missing.

    The message is one line. It names what is wrong and says what to do. The command line prints it without a traceback
    and exits with status 2.
    """


class Complaint(NamedTuple):
    """One error found by a validation.

    Attributes:
        field: path of the field, such as `data.limit`; empty where the whole object is wrong.
        message: what is wrong with it.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"field '{self.field}': {self.message}" if self.field else self.message


def first_error(error: ValidationError) -> Complaint:
    """Return the first error that a pydantic validation found.

    A validator of a whole model has no field. If its message names one, as in `error: is set on a completed run`, that
    field is used.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if not field and ": " in message:
        field, message = message.split(": ", 1)
    return Complaint(field, message)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters; its type if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:_LONGEST_REASON]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has too little memory, so that a smaller batch may fit.

    torch's allocator has an error of its own for that; other allocations are told by their messages alone.
    """
    if not isinstance(error, RuntimeError):
        return False
    # These imports take seconds, and most commands have no such error.
    from accelerate.utils.memory import should_reduce_batch_size
    from torch import OutOfMemoryError

    told = should_reduce_batch_size(error) or any(text in str(error) for text in _OUT_OF_MEMORY)
    return told or isinstance(error, OutOfMemoryError)


@contextmanager
def foreign(what: str, remedy: str) -> Iterator[None]:
    """Turn every failure of a library that reads foreign files into one line.

    Such a library promises nothing about its exceptions: a damaged tokenizer raises a bare `Exception`, an empty state
    dict a `StopIteration`. What a user can do about them is the same, so they are not told apart. Use it around the
    calls of the library alone, because it also hides mistakes of our own.

    Args:
        what: the folder or file, and what is wrong with it, such as `--llm x: has no tokenizer`.
        remedy: what to do.

    Raises:
        UserError: the body failed in any way.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        # A panic of a library in Rust is no `Exception`, and its type cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{what} ({_reason(error)}); {remedy}") from error


def _reason(error: BaseException) -> str:
    """Return what a foreign library says is wrong, in one line of printable characters."""
    words = " ".join(str(error).split())
    if "trust_remote_code" in words:
        return "it needs code of its own, which is never run"
    if not isinstance(error, OSError | ValueError | RuntimeError):
        words = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return visible(words or type(error).__name__)[:_LONGEST_REASON]
