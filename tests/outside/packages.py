"""Packages outside this tree, which Python sees as if they were installed; nothing is downloaded."""

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from methods import ENTRY_POINT_GROUP, registry

ROOT = Path(__file__).parents[2]


def install(package: Path, site: Path) -> None:
    """Copy the modules of a package into `site` and write the metadata of its `pyproject.toml`, like an installer."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))
    for module in project["tool"]["setuptools"]["py-modules"]:
        shutil.copy(package / f"{module}.py", site)
    named = project["project"]
    declare(site, named["name"], named["version"], **named["entry-points"][ENTRY_POINT_GROUP])


def declare(site: Path, name: str, version: str = "0.1.0", **methods: str) -> None:
    """Write the metadata of a package that registers methods.

    Args:
        site: the folder that plays the part of site-packages.
        name: the package's name.
        version: its version.
        methods: registered name -> `module:Class`.
    """
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"[{ENTRY_POINT_GROUP}]", *(f"{method} = {target}" for method, target in methods.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


@contextmanager
def seen_here(site: Path) -> Iterator[None]:
    """Let this process see the packages in `site`, until the context is left."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        importlib.invalidate_caches()
        registry.cache_clear()
        try:
            yield
        finally:
            registry.cache_clear()
            for name in set(sys.modules) - before:
                if Path(getattr(sys.modules[name], "__file__", None) or "").parent == site:
                    del sys.modules[name]


def python(site: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a new Python process in the checkout that can import what `site` holds."""
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
