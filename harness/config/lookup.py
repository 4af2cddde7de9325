"""The registry as a user meets it: what is wrong with a name, or with an installed package, is one line."""

from collections.abc import Iterable
from typing import Any

from harness.errors import UserError
from methods import UnknownMethodError, get_method, registry

_DECLARED = ("title", "source", "Config")
"""What a method says of itself before it is built."""


def registered_names() -> list[str]:
    """Names of all methods, those of installed packages included.

    Raises:
        UserError: two packages register the same name.
    """
    try:
        return list(registry())
    except ValueError as error:
        raise UserError(str(error)) from error


def expand(names: Iterable[str]) -> list[str]:
    """The names, every registered method in place of `all`."""
    return [method for name in names for method in (registered_names() if name == "all" else [name])]


def named_method(name: str, where: str = "--methods") -> Any:
    """The class of a method that a user named.

    Args:
        name: the name.
        where: the option, or the file and field, that it stands in.

    Raises:
        UserError: nothing registers it, it cannot be imported, or the class has another name.
    """
    registered_names()
    try:
        found = get_method(name)
    except UnknownMethodError as error:
        raise UserError(f"{where} {name}: {error}; see `python -m harness methods`") from error
    except Exception as error:  # importing runs a package's own code, which may fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"method {name}: {registry()[name]}: {reason}; repair its package or uninstall it") from error
    own = getattr(found, "name", None)
    if own != name:  # saved adapters carry the one, records the other
        raise UserError(f"method {name}: {registry()[name]} has the name {own!r}; register it under its own name")
    if lacks := [field for field in _DECLARED if not hasattr(found, field)]:
        raise UserError(f"method {name}: {registry()[name]} has no {lacks[0]}; see `methods/base.py`")
    return found
