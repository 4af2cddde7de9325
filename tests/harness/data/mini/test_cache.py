"""The cache of generated data sets."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.mini.build import ensure_mini
from harness.data.mini.cache import Sizes, ensure_built
from harness.data.mini.captions import ensure_captions
from harness.data.mini.world import Scene
from harness.errors import UserError
from harness.files import cache_folder

SIZES = (4, 2, 2)


def test_a_set_is_built_once(tmp_path: Path) -> None:
    root = ensure_mini(tmp_path, seed=1, sizes=SIZES)
    before = (root / "problems.json").stat().st_mtime_ns
    assert ensure_mini(tmp_path, seed=1, sizes=SIZES) == root
    assert (root / "problems.json").stat().st_mtime_ns == before


def test_another_seed_has_another_folder(tmp_path: Path) -> None:
    assert ensure_mini(tmp_path, seed=2, sizes=SIZES) != ensure_mini(tmp_path, seed=1, sizes=SIZES)


def test_a_build_leaves_no_temporary_folder(tmp_path: Path) -> None:
    ensure_mini(tmp_path, seed=1, sizes=SIZES)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(root: Path, seed: int, sizes: Sizes) -> None:
        (root / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_built(tmp_path, "set", 1, 0, SIZES, fail)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_removed_a_day_later(tmp_path: Path) -> None:
    root = ensure_mini(tmp_path, seed=1, sizes=SIZES)
    left, running, other = (tmp_path / name for name in (f".{root.name}.a", f".{root.name}.b", ".mini-captions-v1-0.c"))
    for folder in (left, running, other):
        (folder / "images").mkdir(parents=True)
    for folder in (root, left, other):
        os.utime(folder, (0, 0))
    ensure_mini(tmp_path, seed=1, sizes=SIZES)
    assert set(tmp_path.iterdir()) == {root, running, other}


def test_a_cache_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be written .*XDG_CACHE_HOME"):
        ensure_built(tmp_path / "file", "set", 1, 0, SIZES, lambda root, seed, sizes: None)


@pytest.mark.parametrize(("ensure", "drawing"), [(ensure_mini, "build.png"), (ensure_captions, "captions.png")])
def test_a_disk_that_is_full_while_a_set_is_built_is_a_user_error(
    ensure: Callable[..., Path], drawing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(scene: Scene) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"harness.data.mini.{drawing}", full)
    with pytest.raises(UserError, match=r"cannot be written .*No space left.*; set XDG_CACHE_HOME to a folder"):
        ensure(tmp_path, sizes=SIZES)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "peft-vl-bench"
