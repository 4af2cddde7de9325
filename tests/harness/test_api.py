"""The harness from Python."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import harness
from harness import cli
from harness.errors import UserError
from harness.records import write_record
from tests.record_factory import make


def test_import_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "pandas", "numpy", "pydantic", "rich", "typer")
    code = f"import sys, harness; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_records_are_a_table(tmp_path: Path) -> None:
    assert harness.load_records(tmp_path).empty
    record = make("memvp", 3, 57.0)
    path = write_record(record, tmp_path)
    (row,) = harness.load_records(tmp_path).to_dict("records")
    assert row["metrics.Avg.value"] == 57.0 and row["parameters.trainable"] == 90 and row["config.lr"] == 1e-3
    assert (row["label"], row["seed"], row["protocol"], row["path"]) == ("memvp", 3, "uniform", str(path))
    assert row["created"].to_pydatetime() == record.created


def test_methods_are_compared(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_record(make("memvp", seed, 50.0 + seed / 10), tmp_path)
        write_record(make("dehvf", seed, 60.0 + seed / 7), tmp_path)
    found = harness.compare("dehvf", "memvp", results=tmp_path)
    assert found.differences["Avg"].value > 9 and found.verdict
    with pytest.raises(UserError, match="lavin"):
        harness.compare("lavin", "memvp", results=tmp_path)


def test_the_options_of_a_run_have_the_defaults_of_the_command() -> None:
    from harness.commands.run_options import RunOptions

    command: Any = get_command(cli.app)
    typed = {option.name: option.default for option in command.commands["run"].params}
    renamed = {"ablations": "ablation", "settings": "set_"}
    same = {"seeds": (0,), "shard": (1, 1), "micro_batch": None, "workers": None, "methods": (), "ablations": ()}
    as_text = {
        "seeds": "0",
        "shard": "1/1",
        "micro_batch": "auto",
        "workers": "auto",
        "methods": None,
        "ablations": None,
    }
    options = RunOptions()
    for one in fields(RunOptions):
        default = typed[renamed.get(one.name, one.name)]
        value = getattr(options, one.name)
        if one.name in same:
            assert (value, default) == (same[one.name], as_text[one.name])
        elif one.name in ("settings", "submitit"):
            assert not value and not default
        else:
            assert value == getattr(default, "value", default), one.name


def test_a_run_gives_its_rows_and_its_adapter(
    small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = {"llm": str(small_llm), "clip": f"local-dir:{small_clip}"}
    table = harness.run(
        ["memvp"], results=tmp_path, data_root=mini_set, settings={"batch_size": 4}, steps=2, quiet=True, **backbone
    )
    assert capsys.readouterr().out == ""
    assert list(table["label"]) == ["memvp"] and list(table["status"]) == ["completed"] and list(table["steps"]) == [2]
    assert table.equals(harness.load_records(tmp_path))
    (adapter,) = (path.parent for path in (tmp_path / "adapters").rglob("*.safetensors"))
    assert harness.load_adapter(adapter).answer("which?", choices=["red", "blue"]).choice in (0, 1, None)
    with pytest.raises(TypeError, match="stepz"):
        harness.run(["memvp"], results=tmp_path, stepz=3)
    with pytest.raises(UserError, match="did you mean memvp"):
        harness.run(["memvpp"], results=tmp_path, quiet=True)
