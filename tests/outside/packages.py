"""Packages outside this tree, which a new Python process sees as if they were installed; nothing is downloaded."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from methods import ENTRY_POINT_GROUP

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


def python(site: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a new Python process in the checkout that can import what `site` holds."""
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
