"""No home folder, a user that the system does not know, another working directory, folders that cannot be written.

`tests/harness/test_streams.py` has standard output that is full, closed, or not in UTF-8.
"""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from harness.data.mini.build import ensure_mini
from harness.records import write_record
from tests.command_line import Run, files
from tests.record_factory import make

ROOT = Path(__file__).parents[2]
NOBODY = 54_321
"""A number that no user has."""
AS_NOBODY = (
    f"import os, runpy, sys; os.setreuid({NOBODY}, -1); sys.argv[0] = 'peft-vl-bench'; "
    "runpy.run_module('harness', run_name='__main__')"
)
"""Runs the harness as a real user without an entry. The effective user stays root, so that Python can be read."""
NOWHERE = Path("/sys/peft-vl-bench")
"""Not even root can make this folder."""


def command(*arguments: object, cwd: Path, is_nobody: bool = False, **environment: str) -> tuple[int, str, str]:
    """Run a command in a process of its own without `HOME`, and return its status, its output and its errors."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [sys.executable, *(("-c", AS_NOBODY) if is_nobody else ("-m", "harness")), *map(str, arguments)],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def is_one_line(code: int, err: str) -> bool:
    """Return whether a command ended with an error for the user."""
    return code == 2 and err.startswith("error: ") and err.count("\n") == 1


def has_no_entry() -> bool:
    """Return whether a process here can become a user whom the system does not know."""
    pwd = pytest.importorskip("pwd", reason="the platform has no list of users")
    return os.geteuid() == 0 and all(entry.pw_uid != NOBODY for entry in pwd.getpwall())


@pytest.mark.parametrize("is_nobody", [False, True], ids=["no home", "no entry"])
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("methods",), id="methods", marks=pytest.mark.slow),
        pytest.param(("table", "--results", "none"), id="table"),
    ],
)
def test_reading_needs_no_home_and_writes_nothing(arguments: tuple[str, ...], is_nobody: bool, tmp_path: Path) -> None:
    if is_nobody and not has_no_entry():
        pytest.skip("only root can become another user")
    code, out, err = command(*arguments, cwd=tmp_path, is_nobody=is_nobody)
    assert (code, err) == (0, "") and "MemVP" in out
    assert files(tmp_path) == set()


@pytest.mark.skipif(os.name != "posix", reason="a folder in use cannot be removed on other platforms")
def test_a_working_directory_that_was_removed_is_said_in_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = f'rmdir "{gone}" && "$0" -m harness run --dry-run'
    command_line = ["sh", "-c", shell, sys.executable]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command_line, cwd=gone, env=environment, capture_output=True, text=True, check=False)
    assert is_one_line(done.returncode, done.stderr) and "the working directory" in done.stderr


@pytest.mark.slow
def test_a_dry_run_needs_no_home(mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path) -> None:
    backbone = ("--llm", small_llm, "--clip", f"local-dir:{small_clip}", "--data-root", mini_set)
    code, out, err = command("run", "--methods", "memvp", *backbone, "--dry-run", cwd=tmp_path)
    assert code == 0 and "memvp" in out, err
    assert files(tmp_path) == set()


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--dry-run",), ("--steps", "1")], ids=["dry run", "run"])
def test_a_user_without_a_home_is_told_where_the_small_world_can_be_kept(more: tuple[str, ...], tmp_path: Path) -> None:
    if not has_no_entry():
        pytest.skip("only root can become another user")
    code, out, err = command("run", "--methods", "memvp", *more, cwd=tmp_path, is_nobody=True)
    assert code == 2 and "XDG_CACHE_HOME: not set, and you have no home folder" in out + err, out + err
    assert "Traceback" not in err and (not err or is_one_line(code, err))
    assert files(tmp_path) == set()


def test_a_damaged_small_world_is_built_again_once_it_is_removed(
    call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build = partial(ensure_mini, sizes=(4, 2, 2))  # the whole set takes long
    monkeypatch.setattr("harness.tasks.scienceqa.ensure_mini", build)
    command = ("run", "--methods", "oracle", "--results", tmp_path / "results")
    problems = build() / "problems.json"
    assert tmp_path in problems.parents
    whole = problems.read_bytes()
    problems.write_bytes(whole[: len(whole) // 2])
    advice = f"the data is generated: remove {problems.parent}, and it is built again"
    done, dry = call(*command), call(*command, "--dry-run")
    assert is_one_line(done.code, done.err), done.err
    assert f"{problems}: not valid JSON" in done.err and advice in done.err
    assert dry.code == 2 and advice in dry.out
    shutil.rmtree(problems.parent)
    assert call(*command, "--dry-run").code == 0 and problems.read_bytes() == whole


@pytest.mark.skipif(not NOWHERE.parent.is_dir(), reason="the platform has no /sys")
@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "--results", "results", "--out", NOWHERE),
        ("readme", "--results", NOWHERE),
        ("plot", "figure2", "--out", NOWHERE / "figure.pdf"),
        ("run", "--methods", "memvp", "--save-config", NOWHERE / "run.toml"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_folder_that_cannot_be_written_is_said_in_one_line(
    call: Run, arguments: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(make("memvp"), Path("results"))
    done = call(*arguments)
    assert is_one_line(done.code, done.err) and str(NOWHERE) in done.err, done.err


@pytest.mark.skipif(not NOWHERE.parent.is_dir(), reason="the platform has no /sys")
def test_a_run_finds_before_it_begins_that_its_results_cannot_be_written(call: Run, base: list[str]) -> None:
    done = call(*base, "--methods", "memvp", "--results", NOWHERE)
    assert is_one_line(done.code, done.err) and str(NOWHERE) in done.err, done.err
    assert "training" not in done.out
