"""A method loads only the blocks that it uses."""

import json
import subprocess
import sys

import pytest

BLOCKS = ("methods.fuser", "methods.memory", "methods.memory_forms")
UNUSED = {
    "lavin": BLOCKS,
    "llava_lora": BLOCKS,
    "llama_adapter": BLOCKS,
    "memvp": ("methods.fuser",),
}
"""Module of a method -> the shared blocks that it does not use; a method comes after those that load less."""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """The blocks that are loaded after each method's module is imported, one after the other in a fresh interpreter."""
    code = f"""
import importlib, json, sys
found = {{}}
for name in {list(UNUSED)!r}:
    importlib.import_module("methods." + name)
    found[name] = [block for block in {BLOCKS!r} if block in sys.modules]
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", UNUSED)
def test_a_method_does_not_load_blocks_that_it_does_not_use(name: str, loaded: dict[str, list[str]]) -> None:
    assert not set(loaded[name]) & set(UNUSED[name])


def test_a_block_that_is_used_is_seen(loaded: dict[str, list[str]]) -> None:
    assert "methods.memory" in loaded["memvp"]
