"""Looking up methods that a user named. A wrong name or a broken package is reported in one line."""

from collections.abc import Iterable
from typing import Any

from harness.errors import UserError
from methods import UnknownMethodError, get_method, registry

_REQUIRED = ("title", "source", "Config")
"""Class attributes that every method must have."""


def registered_names() -> list[str]:
    """Return the names of all methods, including those of installed packages.

    Raises:
        UserError: two packages register the same name.
    """
    try:
        return list(registry())
    except ValueError as error:
        raise UserError(str(error)) from error


def expand(names: Iterable[str]) -> list[str]:
    """Return the names with `all` replaced by every registered method.

    Raises:
        UserError: `all` is given and two packages register the same name.
    """
    return [method for name in names for method in (registered_names() if name == "all" else [name])]


def named_method(name: str, where: str = "--methods") -> Any:
    """Return the class of a method that a user named. The class satisfies `methods.base.Method`.

    Args:
        name: the name.
        where: the option, or the file and field, in which the user gave it.

    Raises:
        UserError: no method has this name, its package cannot be imported, its class has another name, or a
            required attribute is missing.
    """
    registered_names()
    try:
        found = get_method(name)
    except UnknownMethodError as error:
        raise UserError(f"{where} {name}: {error}; see `python -m harness methods`") from error
    except Exception as error:  # importing runs the package's code, which may fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"method {name}: {registry()[name]}: {reason}; repair its package or uninstall it") from error
    own = getattr(found, "name", None)
    if own != name:  # saved adapters store the attribute, records store the registered name
        raise UserError(f"method {name}: {registry()[name]} has the name {own!r}; register it under its own name")
    if missing := [field for field in _REQUIRED if not hasattr(found, field)]:
        raise UserError(f"method {name}: {registry()[name]} has no {missing[0]}; add it, see `methods/base.py`")
    return found
