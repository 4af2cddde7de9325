"""The code, the package versions and the machine that a record was made with. Imports no torch."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from harness.records.sections import Earlier, Environment, Git, Maker
from methods import package_of

PACKAGES = ("torch", "torchvision", "transformers", "peft", "open_clip_torch", "accelerate")
_ROOT = Path(__file__).resolve().parents[2]
# Only changes to these paths make the code dirty. Results that earlier runs wrote are not code.
_CODE = ("methods", "harness", "pyproject.toml")


def collect_environment(
    gpu: str | None = None,
    threads: int | None = None,
    method: str | None = None,
    processes: int | None = None,
    sharded: bool | None = None,
    deterministic: bool | None = None,
    quantised: bool = False,
    earlier: Sequence[Earlier] = (),
) -> Environment:
    """Return the package versions and the hardware of this process.

    Args:
        gpu: model of the GPU in use; None if no GPU is used.
        threads: number of compute threads, `torch.get_num_threads()`. The caller gives it because this module must not
            import torch.
        method: name of the method that is run. If a package outside this project provides it, that package's version
            is included.
        processes: number of processes that work together, each on a device of its own.
        sharded: whether they divide the frozen decoder layers among them.
        deterministic: whether torch computes with deterministic algorithms only.
        quantised: whether the language model is quantised; the version of the package that does it is then included.
        earlier: code and machines of processes that trained before an interruption.
    """
    package = package_of(method) if method else None
    packages = (*PACKAGES, *([package] if package else []), *(["bitsandbytes"] if quantised else []))
    return Environment(
        python=platform.python_version(),
        versions={name: _version(name) for name in packages},
        platform=platform.platform(),
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        gpu=gpu,
        threads=threads,
        processes=processes,
        sharded=sharded,
        deterministic=deterministic,
        earlier=list(earlier),
    )


def collect_git(root: Path = _ROOT) -> Git:
    """Return the commit of the checkout at `root`, and whether its code has uncommitted changes."""
    if not (root / ".git").exists():
        return Git(reason="not run from a git checkout")
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", *_CODE)
    except FileNotFoundError:
        return Git(reason="git is not installed")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return Git(reason="git could not read the checkout")
    return Git(commit=commit, dirty=bool(changed))


def collect_maker(gpu: str | None) -> Maker:
    """Return the code and the machine of this process.

    Args:
        gpu: model of the GPU in use; None if no GPU is used.
    """
    git = collect_git()
    commit = f"{git.commit}-dirty" if git.commit and git.dirty else git.commit
    return Maker(commit=commit, torch=_version("torch"), cpu=_cpu_model(), gpu=gpu)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, None) or platform.processor() or None
