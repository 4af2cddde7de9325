"""Settings files: what they hold, what is refused, and that one file makes a run again."""

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.commands.run_options import RunOptions
from harness.config.plan import Overrides, plan_runs
from harness.config.presets import PRESETS
from harness.config.settings import GENERATED, Settings, read_settings, settings_text
from harness.data.mini.build import NAME
from harness.data.mini.captions import CAPTIONS_NAME
from harness.escape import visible_lines
from harness.records import Record, read_records, record_path, write_record
from tests.command_line import Run, call, quick_run
from tests.record_factory import fields

_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)
_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        _TEXTS,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=6,
)
_DEEP = "[" * 900 + "]" * 900
_KEYS = st.from_regex(r"([a-z]{1,6}\.)?x_[a-z]{1,6}", fullmatch=True)


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
        ("[set.memvp]\na = '" + "x" * 20_000 + "'", "run.toml: set.memvp.a: has 20,000 characters"),
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


@pytest.fixture
def record_of(tmp_path: Path) -> Callable[..., Path]:
    """Write a record with this config, and return its path."""
    return lambda **config: write_record(Record(**fields(config=config)), tmp_path / "results")


@pytest.mark.parametrize(
    "value",
    [[None], [[1], ["a", None]], {"a": None}, {"a": [{"b": None}]}, [{"c": {}}], 10**30, "9" * 5000, "[" * 3000],
)
def test_what_toml_has_no_word_for_is_kept(value: Any, record_of: Callable[..., Path], tmp_path: Path) -> None:
    done = saved_config(record_of(train={"x": value}, method={"y": value}), tmp_path)
    assert done.settings == {"x": value, "memvp.y": value}


def test_a_run_made_again_says_the_same_about_its_settings(tmp_path: Path) -> None:
    (plan,) = plan_runs(["memvp"], [], [0], PRESETS["tiny"], "scienceqa", Overrides())
    record = Record(**fields(config=plan.resolved(), tuning=plan.recipe.tuning))
    saved = saved_config(write_record(record, tmp_path), tmp_path)
    assert plan_runs(["memvp"], [], [0], PRESETS["tiny"], "scienceqa", Overrides(settings=saved.settings)) == [plan]


def test_no_file_acts_on_a_terminal() -> None:
    odd = "y\x9b31m\u202ez\x1b[31m\t\x7f\u2028\r\n"
    text = settings_text(Settings({"data-root": odd}, {odd: [odd]}), [odd])
    assert visible_lines(text) == text and "\\u009B" in text and "\\u202E" in text


@pytest.mark.parametrize("value", ["two\nlines", ["\x1b[31m"], {"a": {"\u202e": 1}}])
def test_a_setting_with_control_characters_is_refused(value: Any, call: Run, tmp_path: Path) -> None:
    for key in ("tuning", "memvp.tuning"):
        done = call("run", "--methods", "memvp", "--dry-run", "--set", f"{key}={json.dumps(value)}")
        message = f"error: --set {key}: contains control characters; give text without them\n"
        assert (done.code, done.err) == (2, message)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"train": {"a": 1, "a.b": 2}}, "config.train.a.b: is the name of no setting"),
        ({"train": {"a.b": 2, "a": 1}}, "config.train.a.b: is the name of no setting"),
        ({"train": {".base_lr": 2}}, "config.train..base_lr: is the name of no setting"),
        ({"train": {"memvp": 1}, "method": {"a": 1}}, "config.train.memvp: is the name of no setting"),
        ({"method": {"a.b": 1}}, "config.method.a.b: is the name of no setting"),
        ({"train": {"tuning": "x" * 20_000}}, "config.train.tuning: has 20,000 characters"),
        ({"method": {"a": ["x" * 5_000, ["x" * 6_000]]}}, "config.method.a: has 11,010 characters"),
    ],
)
def test_what_no_settings_file_can_hold_is_named(
    config: dict[str, Any], said: str, record_of: Callable[..., Path]
) -> None:
    path = record_of(**config)
    done = call("records", "config", path)
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert said in done.err and path.name in done.err and "--set" not in done.err


def saved_config(path: Path, folder: Path) -> Settings:
    """Return what `records config` prints, as `run --config` reads it."""
    (folder / "run.toml").write_text(call("records", "config", path).out, encoding="utf-8", newline="")
    return read_settings(folder / "run.toml")


@pytest.mark.parametrize("pairs", [("memvp=1", "memvp.x=2"), ("memvp.x=2", "memvp=1"), ("x=[null]",), ("x=" + _DEEP,)])
def test_settings_that_no_run_can_have_are_saved_or_refused_in_one_line(pairs: tuple[str, ...], tmp_path: Path) -> None:
    options = [part for pair in pairs for part in ("--set", pair)]
    done = call("run", "--methods", "memvp", *options, "--save-config", tmp_path / "run.toml", "--dry-run")
    assert done.code == 2 and done.err.count("\n") == 1 and "--set" in done.err


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


@pytest.mark.parametrize(
    ("file", "given", "kept"),
    [
        ("steps = 3", ["--epochs", "2"], {"epochs": 2.0}),
        ("epochs = 2", ["--steps", "3"], {"steps": 3}),
        ("steps = 3", ["--set", "epochs=2"], {"set": {"epochs": 2}}),
        ("[set]\nepochs = 4\nbase_lr = 1", ["--epochs", "2"], {"epochs": 2.0, "set": {"base_lr": 1}}),
        ("[set]\nepochs = 4\n[set.memvp]\nepochs = 5", ["--steps", "3"], {"steps": 3}),
        ("[set]\nepochs = 4\nwarmup_epochs = 1", ["--epochs", "2"], {"epochs": 2.0}),
        ("[set]\nwarmup_epochs = 1", ["--epochs", "2"], {"epochs": 2.0, "set": {"warmup_epochs": 1}}),
        ("steps = 3\n[set]\nepochs = 4", ["--set", "memvp.memory_length=5"], {"steps": 3, "set": {"epochs": 4}}),
    ],
)
def test_the_length_on_the_command_line_replaces_that_of_the_file(
    file: str, given: list[str], kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whichever of the three ways of saying it each of them takes."""
    asked: list[RunOptions] = []

    def keep(options: RunOptions, console: object) -> int:
        asked.append(options)
        return 0

    monkeypatch.setattr("harness.commands.run.run_command", keep)
    (tmp_path / "run.toml").write_text(file)
    done = call("run", "--config", tmp_path / "run.toml", *given, "--save-config", tmp_path / "saved.toml")
    assert done.code == 0, done.err
    (options,) = asked
    assert (options.epochs, options.steps) == (kept.get("epochs"), kept.get("steps"))
    settings = {key: value for key, value in options.settings.items() if not key.startswith("memvp.")}
    assert settings == kept.get("set", {})
    saved = tomllib.loads((tmp_path / "saved.toml").read_text())
    assert {name: saved[name] for name in ("epochs", "steps") if name in saved} == {
        name: kept[name] for name in ("epochs", "steps") if name in kept
    }


def test_a_file_that_gives_the_length_twice_is_refused(call: Run, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("steps = 3\nepochs = 2")
    done = call("run", "--config", tmp_path / "run.toml", "--dry-run")
    assert done.code == 2 and "--steps and --epochs: give one of them" in done.err


@pytest.mark.slow
def test_every_pair_of_the_command_line_wins(call: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[set]\nbase_lr = 0.01\n[set.dehvf]\nbase_lr = 0.02\n")
    options = ["run", "--config", file, "--methods", "dehvf", "--dry-run", "--format", "json"]
    for pairs, rate in (([], 0.02), (["--set", "base_lr=0.03"], 0.03)):
        (row,) = json.loads(call(*options, *pairs, "--results", tmp_path / "results").out)["runs"]
        assert row["train"]["base_lr"] == rate


def test_the_sets_that_need_no_folder_are_those_that_are_made_here() -> None:
    assert {*GENERATED} == {NAME, CAPTIONS_NAME}
