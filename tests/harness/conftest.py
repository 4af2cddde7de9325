"""Fixtures of the harness tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with pieces of the real benchmarks (they are not part of the project)."""
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


@pytest.fixture(scope="session")
def mini_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a procedural data set of a few problems."""
    from tests.folders import save_mini

    return save_mini(tmp_path_factory.mktemp("data") / "mini")
