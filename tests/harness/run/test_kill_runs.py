"""Every method's run survives SIGKILL at random moments."""

import os
import random
from pathlib import Path

import pytest

from methods import BUILT_IN
from tests.kill_runs import Folders, kill_and_compare

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")]


@pytest.mark.parametrize("method", BUILT_IN)
def test_a_run_that_was_killed_twice_is_that_of_one_go(
    method: str, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    folders = Folders(small_llm, small_clip, mini_set)
    said = kill_and_compare(method, 2, folders, tmp_path, random.Random(method), steps=10)
    assert said.startswith(f"{method}: same after 2 kills")
