"""The one exception that a user is meant to see, and what a failed validation says in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # pydantic takes longer to import than `--help` takes to print
    from pydantic import ValidationError


class UserError(Exception):
    """A mistake or a lack on the user's side: one line that names what is wrong and what to do.

    The command line prints the message and exits with status 2, without a traceback.
    """


class Complaint(NamedTuple):
    """One complaint of a validation.

    Attributes:
        field: path of the field, such as `data.limit`; empty where the whole object is wrong.
        message: what is wrong with it.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"field '{self.field}': {self.message}" if self.field else self.message


def first_error(error: ValidationError) -> Complaint:
    """The first complaint of a pydantic validation.

    A validator of a whole model names the field itself, as in `error: is set on a completed run`.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if not field and ": " in message:
        field, message = message.split(": ", 1)
    return Complaint(field, message)
