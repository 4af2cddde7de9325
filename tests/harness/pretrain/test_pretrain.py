"""The command that makes the tiny backbone."""

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.pretrain import pretrain


def test_no_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one step"):
        pretrain(tmp_path, llm_steps=0)
