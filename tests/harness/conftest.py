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
