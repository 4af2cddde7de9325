"""Loading a task."""

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.tasks.contract import DataOptions, load_task
from harness.tasks.facts import TASKS


def test_an_unknown_task_is_an_error() -> None:
    with pytest.raises(UserError, match="--task vqa: no such task"):
        load_task("vqa", DataOptions())


@pytest.mark.parametrize("name", TASKS)
def test_a_folder_without_data_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_task(name, DataOptions(tmp_path))
