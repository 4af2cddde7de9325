"""The command that makes the tiny backbone."""

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.pretrain import pretrain


@pytest.mark.parametrize("number", ["clip_steps", "llm_steps", "threads"])
def test_no_steps_and_no_threads_are_refused(number: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one step and one thread"):
        pretrain(tmp_path, **{number: 0})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_training_that_fails_ends_the_other(tmp_path: Path) -> None:
    (tmp_path / "clip").write_text("this is no folder")
    with pytest.raises(UserError, match=r"clip.* cannot be written"):
        pretrain(tmp_path, clip_steps=1, llm_steps=10**9)
