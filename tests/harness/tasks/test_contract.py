"""Loading a task, and adding one."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.config import recipe
from harness.errors import UserError
from harness.report.paper import load_paper
from harness.tasks.contract import DataOptions, load_task
from harness.tasks.facts import TASKS
from tests.command_line import Run


def test_an_unknown_task_is_an_error() -> None:
    with pytest.raises(UserError, match="--task vqa: no such task"):
        load_task("vqa", DataOptions())


@pytest.mark.parametrize("name", TASKS)
def test_a_folder_without_data_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_task(name, DataOptions(tmp_path))


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A new task, registered as docs/first-task.md says, whose data has no place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tables = load_paper().tables  # read before the task is there, of which the file knows nothing
    monkeypatch.setitem(tables, "9", tables["1"].model_copy(update={"task": "mine"}))
    monkeypatch.setitem(TASKS, "mine", replace(TASKS["scienceqa"], table=9, ablation_table=None))
    monkeypatch.setitem(recipe._RECIPE_OF_TASK, "mine", recipe.ChoiceRecipe)
    return "mine"


@pytest.mark.parametrize(
    "command", [("run", "--methods", "memvp", "--dry-run"), ("run", "--methods", "memvp"), ("doctor",)]
)
def test_a_task_whose_data_has_no_place_needs_a_folder(command: tuple[str, ...], mine: str, call: Run) -> None:
    done = call(*command, "--task", mine, "--model", "7b")
    said = done.out + done.err
    assert done.code == 2 and f"--data-root: needed for --task {mine}" in said
    assert "KeyError" not in said and said.count("--data-root: needed") == 1


def test_a_task_whose_data_has_no_place_takes_a_folder(
    mine: str, call: Run, small_llm: Path, small_clip: Path, mini_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.commands.doctor.check_tokenizer", lambda: None)
    options = ["--llm", small_llm, "--clip", f"local-dir:{small_clip}", "--task", mine]
    for folder, code in ((mini_set, 0), (mini_set / "nothing", 2)):
        done = call("doctor", *options, "--data-root", folder)
        assert done.code == code and "cannot be examined" not in done.out
    done = call("run", *options, "--data-root", mini_set, "--methods", "memvp", "--dry-run")
    assert done.code == 0 and "nothing is missing" in done.out
