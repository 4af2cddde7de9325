"""Settings files: what they hold, what is refused, and that one file makes a run again."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.settings import Settings, read_settings, settings_text
from harness.records import read_records, record_path
from tests.command_line import Run, quick_run

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20),
    st.lists(st.integers(0, 9), max_size=3),
)
_KEYS = st.from_regex(r"([a-z]{1,6}\.)?x_[a-z]{1,6}", fullmatch=True)


@given(st.dictionaries(_KEYS, _VALUES, max_size=6))
def test_every_setting_survives_a_file(settings: dict[str, Any]) -> None:
    table = tomllib.loads(settings_text(Settings({"model": "tiny"}, settings)))
    assert table["model"] == "tiny"


@given(settings=st.dictionaries(_KEYS, _VALUES, max_size=6))
def test_reading_gives_what_was_written(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("settings") / "run.toml"
    path.write_text(settings_text(Settings({"limit": None, "steps": 3}, settings)), encoding="utf-8")
    assert read_settings(path) == Settings({"steps": 3}, settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = [1", "is not TOML"),
        ("steps = " + "9" * 5000, "is not TOML"),
        ("steps = " + "[" * 9000 + "]" * 9000, "is not TOML"),
        ("method = 'memvp'", "method: no such option of `run`; did you mean methods?"),
        ("data_root = 'x'", "data_root: no such option of `run`; did you mean data-root?"),
        ("config = 'x'", "config: no such option"),
        ("steps = 'x'", "steps: "),
        ("steps = 0", "steps: "),
        ("steps = true", "steps: True is not a value of this option"),
        ("full = 'yes'", "full: 'yes' is not true or false"),
        ("limit = {a = 1}", "limit: "),
        ("set = 3", "set: is not a table"),
        ("model = 'tyny'", "--model tyny: no such preset"),
        ("[set]\nbas_lr = 1", "--set bas_lr: neither the recipe nor"),
        ("[set.lavin]\nbase_lr = 1", "--set lavin.base_lr: lavin is not a method of this run"),
    ],
)
def test_a_faulty_file_is_one_line(text: str, message: str, call: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    done = call("run", "--config", file)
    assert done.code == 2 and done.err.count("\n") == 1 and message in done.err, done.err
    assert call("run", "--config", tmp_path / "none.toml").err.startswith("error: --config ")


@pytest.mark.timeout(60)
def test_a_settings_file_that_never_ends_or_blocks_is_refused(call: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", Path("/dev/zero")):
        done = call("run", "--config", path)
        assert done.code == 2 and "cannot be read (not a regular file)" in done.err


@pytest.mark.slow
def test_a_file_reproduces_a_run(call: Run, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path) -> None:
    """The saved options, and the record, both lead to the run that is there, and the command line wins over a file."""
    results, saved = tmp_path / "results", tmp_path / "saved.toml"
    base = quick_run(small_llm, small_clip, mini_set, results)
    done = call(
        *base, "--methods", "memvp", "--seeds", "7", "--set", "memvp.memory_dropout=0.5", "--save-config", saved
    )
    assert done.code == 0, done.err
    assert "already recorded" in call("run", "--config", saved).out
    (record,) = read_records(results)
    own = tmp_path / "own.toml"
    own.write_text(call("records", "config", record_path(record, results)).out)
    folders = ["--llm", small_llm, "--clip", f"local-dir:{small_clip}", "--data-root", mini_set, "--results", results]
    assert "already recorded" in call("run", "--config", own, *folders).out
    other = call("run", "--config", saved, "--steps", "2", "--set", "memvp.memory_dropout=0.25")
    assert other.code == 0 and len(read_records(results)) == 2
    changed = next(found for found in read_records(results) if found.run_id != record.run_id)
    assert (changed.seed, changed.steps) == (7, 2)
    method = changed.config["method"]
    assert isinstance(method, dict) and method["memory_dropout"] == 0.25


@pytest.mark.slow
def test_every_pair_of_the_command_line_wins(call: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[set]\nbase_lr = 0.01\n[set.dehvf]\nbase_lr = 0.02\n")
    options = ["run", "--config", file, "--methods", "dehvf", "--dry-run", "--format", "json"]
    for pairs, rate in (([], 0.02), (["--set", "base_lr=0.03"], 0.03)):
        (row,) = json.loads(call(*options, *pairs, "--results", tmp_path / "results").out)["runs"]
        assert row["train"]["base_lr"] == rate
