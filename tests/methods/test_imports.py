"""A method loads only the shared blocks that it uses."""

import importlib
import sys
from collections.abc import Iterator

import pytest

import methods

BLOCKS = {"methods.fuser", "methods.memory", "methods.memory_forms"}


@pytest.fixture
def nothing_loaded() -> Iterator[None]:
    """Forget the modules of `methods` during a test, so that importing one loads what it needs anew."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("methods.")}
    yield
    for name in [name for name in sys.modules if name.startswith("methods.")]:
        del sys.modules[name]
        delattr(methods, name.removeprefix("methods."))
    for name, module in kept.items():
        sys.modules[name] = module
        setattr(methods, name.removeprefix("methods."), module)


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("dehvf", BLOCKS),
        ("memvp", BLOCKS - {"methods.fuser"}),
        ("lavin", set()),
        ("llava_lora", set()),
        ("llama_adapter", set()),
    ],
)
def test_a_method_loads_only_the_blocks_that_it_uses(name: str, used: set[str]) -> None:
    importlib.import_module(f"methods.{name}")
    assert BLOCKS & sys.modules.keys() == used
