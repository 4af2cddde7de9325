"""The registry of methods: name to class, imported only when asked for.

Outside packages add a method through the entry-point group `peft_vl_bench.methods`:

    [project.entry-points."peft_vl_bench.methods"]
    my_method = "my_package.my_method:MyMethod"
"""

import difflib
import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

ENTRY_POINT_GROUP = "peft_vl_bench.methods"

_BUILT_IN = {
    "dehvf": "methods.dehvf:DEHVF",
    "memvp": "methods.memvp:MemVP",
    "lavin": "methods.lavin:LaVIN",
    "llava_lora": "methods.llava_lora:LLaVALoRA",
    "llama_adapter": "methods.llama_adapter:LLaMAAdapter",
}


class UnknownMethodError(ValueError):
    """A method name that nothing registers."""


@cache
def registry() -> dict[str, str]:
    """Method name -> `module:Class`, the built-in ones first, then those of installed packages.

    Raises:
        ValueError: two packages register the same name.
    """
    found = dict(_BUILT_IN)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if found.get(entry.name, entry.value) != entry.value:
            raise ValueError(
                f"method {entry.name!r} is registered twice: {found[entry.name]} and {entry.value}; "
                "rename one of the entry points"
            )
        found[entry.name] = entry.value
    return found


def get_method(name: str) -> Any:
    """The class of a registered method.

    Raises:
        UnknownMethodError: nothing registers `name`; the message suggests the nearest names.
    """
    found = registry()
    if name not in found:
        near = difflib.get_close_matches(name.lower(), found, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"registered: {', '.join(found)}"
        raise UnknownMethodError(f"unknown method {name!r}: {hint}")
    module, _, attribute = found[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def package_of(name: str) -> str | None:
    """The installed package that registers a method; None for a built-in one and for a name that nothing registers."""
    found = (entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == name)
    entry = next(found, None) if name not in _BUILT_IN else None
    return entry.dist.name if entry is not None and entry.dist is not None else None
