"""The registry: it imports late, is complete, and reports collisions and typing errors clearly."""

import importlib
import subprocess
import sys
from typing import Any

import pytest
import torch

from methods import UnknownMethodError, get_method, registry


def test_the_five_methods_are_registered() -> None:
    assert {"dehvf", "memvp", "lavin", "llava_lora", "llama_adapter"} <= registry().keys()


def test_every_registered_name_gives_its_class_which_is_a_module() -> None:
    for name, target in registry().items():
        module, _, attribute = target.partition(":")
        assert get_method(name) is getattr(importlib.import_module(module), attribute)
        assert issubclass(get_method(name), torch.nn.Module)


def test_importing_and_listing_loads_neither_torch_nor_pydantic() -> None:
    code = "import sys, methods; methods.registry(); print([m for m in ('torch', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("typed", "meant"), [("dehfv", "dehvf"), ("memvip", "memvp"), ("DEHVF", "dehvf"), ("LLaVA-LoRA", "llava_lora")]
)
def test_a_typing_error_gets_a_suggestion(typed: str, meant: str) -> None:
    with pytest.raises(UnknownMethodError, match=rf"unknown method '{typed}': did you mean .*{meant}"):
        get_method(typed)


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(UnknownMethodError, match="registered: dehvf, memvp"):
        get_method("xyzxyz")


def test_outside_packages_add_methods(install: Any) -> None:
    install(ordered="collections:OrderedDict")
    assert registry()["ordered"] == "collections:OrderedDict"
    assert "dehvf" in registry()
    assert get_method("ordered").__name__ == "OrderedDict"


def test_an_outside_package_is_imported_only_when_asked_for(install: Any) -> None:
    install(broken="no_such_package.anywhere:Method")
    assert "broken" in registry()
    assert get_method("memvp").name == "memvp"
    with pytest.raises(ModuleNotFoundError):
        get_method("broken")


def test_a_collision_raises_and_names_both(install: Any) -> None:
    install(dehvf="elsewhere:Other")
    with pytest.raises(ValueError, match=r"'dehvf' is registered twice: methods.dehvf:DEHVF and elsewhere:Other"):
        registry()


def test_the_same_entry_twice_is_no_collision(install: Any) -> None:
    install(dehvf=registry()["dehvf"])
    assert get_method("dehvf").name == "dehvf"
