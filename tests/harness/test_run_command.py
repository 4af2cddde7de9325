"""What `run` says at its end."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from harness.commands.run import ending
from harness.records import write_record
from tests.command_line import Run
from tests.record_factory import make


def _ending(results: Path, *records: Any) -> str:
    for record in records:
        write_record(record, results)
    return "\n".join(ending(results, records))


def test_two_methods_with_a_seed_in_common_are_compared_by_the_next_command(call: Run, tmp_path: Path) -> None:
    results = tmp_path / "my results"
    text = _ending(results, *(make(method, seed) for method in ("memvp", "dehvf") for seed in (0, 1)))
    assert f"curves: {results}/records/scienceqa/tiny\n" in text
    *_, command = text.splitlines()
    assert command.startswith("Next: python -m harness compare memvp dehvf --model tiny --task scienceqa --results ")
    assert call(*shlex.split(command)[4:]).code == 0


@pytest.mark.parametrize("changes", [{"data": {"limit": 5}}, {"backbone": {"weights": "random"}, "metrics": {}}])
def test_what_enters_no_table_is_not_compared(changes: dict[str, Any], tmp_path: Path) -> None:
    text = _ending(tmp_path, make("memvp", **changes), make("dehvf", **changes))
    assert "compare" not in text and f"Next: python -m harness report --results {tmp_path}" in text


def test_only_folders_that_exist_are_named(tmp_path: Path) -> None:
    assert "Adapters" not in _ending(tmp_path, make("memvp"))
    (tmp_path / "adapters/scienceqa/tiny").mkdir(parents=True)
    assert f"Adapters: {tmp_path}/adapters/scienceqa/tiny" in _ending(tmp_path, make("memvp"))
    assert "the same command" in _ending(tmp_path, make("memvp", status="failed"))
