"""Fixtures of the harness tests."""

import os
from pathlib import Path

import pytest

from harness.config.presets import BackboneSpec, resolve_spec
from tests import command_line
from tests.command_line import Run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with pieces of the real benchmarks, which are no part of the project; see CONTRIBUTING.md."""
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("PEFT_VL_BENCH_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set PEFT_VL_BENCH_DATA to a folder with scienceqa150, coco, ...")
    return folder


@pytest.fixture(scope="session")
def small_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Llama with its tokenizer."""
    from tests.folders import save_llm

    return save_llm(tmp_path_factory.mktemp("backbone") / "small-llm")


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random open_clip model."""
    from tests.folders import save_clip

    return save_clip(tmp_path_factory.mktemp("backbone") / "small-clip")


@pytest.fixture
def spec(small_llm: Path, small_clip: Path) -> BackboneSpec:
    """A random backbone on disk."""
    return resolve_spec("tiny", str(small_llm), f"local-dir:{small_clip}")


@pytest.fixture(scope="session")
def mini_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a procedural data set of a few problems."""
    from tests.folders import save_mini

    return save_mini(tmp_path_factory.mktemp("data") / "mini")


@pytest.fixture
def call() -> Run:
    """The command line in this process, see `tests.command_line.call`."""
    return command_line.call


@pytest.fixture
def base(small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path) -> list[str]:
    """The arguments of a short run."""
    return command_line.quick_run(small_llm, small_clip, mini_set, tmp_path / "results")
