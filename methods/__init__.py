"""The registry of methods: it maps a name to a class, whose module is imported only when the class is needed.

A package outside this repository adds a method through the entry-point group `peft_vl_bench.methods`:

    [project.entry-points."peft_vl_bench.methods"]
    my_method = "my_package.my_method:MyMethod"
"""

import difflib
import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

ENTRY_POINT_GROUP = "peft_vl_bench.methods"

BUILT_IN = {
    "dehvf": "methods.dehvf:DEHVF",
    "memvp": "methods.memvp:MemVP",
    "lavin": "methods.lavin:LaVIN",
    "llava_lora": "methods.llava_lora:LLaVALoRA",
    "llama_adapter": "methods.llama_adapter:LLaMAAdapter",
}
"""The methods of this repository: name -> `module:Class`."""


class UnknownMethodError(ValueError):
    """Raised for a method name that is not registered."""


@cache
def registry() -> dict[str, str]:
    """Return the registered methods as a mapping from name to `module:Class`.

    The built-in ones come first, then those of installed packages.

    Raises:
        ValueError: two packages register the same name.
    """
    found = dict(BUILT_IN)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if found.get(entry.name, entry.value) != entry.value:
            raise ValueError(
                f"method {entry.name!r} is registered twice: {found[entry.name]} and {entry.value}; "
                "rename one of the entry points"
            )
        found[entry.name] = entry.value
    return found


def get_method(name: str) -> Any:
    """Return the class of a registered method.

    Args:
        name: the method's registered name.

    Raises:
        UnknownMethodError: `name` is not registered; the message suggests similar names.
        ImportError: the module of the method cannot be imported.
    """
    found = registry()
    if name not in found:
        near = difflib.get_close_matches(name.lower(), found, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"registered: {', '.join(found)}"
        raise UnknownMethodError(f"unknown method {name!r}: {hint}")
    module, _, attribute = found[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def package_of(name: str) -> str | None:
    """Return the name of the installed package that registers a method.

    Args:
        name: the method's registered name.

    Returns:
        None for a built-in method and for a name that is not registered.
    """
    found = (entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == name)
    entry = next(found, None) if name not in BUILT_IN else None
    return entry.dist.name if entry is not None and entry.dist is not None else None
