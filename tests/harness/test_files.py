"""Files are written completely or not at all, and a path that cannot be written gives a one-line error."""

import os
from pathlib import Path

import pytest

from harness import files
from harness.errors import UserError
from harness.files import (
    copy_atomic,
    new_folder,
    require_place,
    require_writable,
    sha256_of_files,
    write_atomic,
)


@pytest.fixture(params=["file", "file/below"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path that cannot be a folder, because it is a file or below one."""
    (tmp_path / "file").write_text("kept")
    return tmp_path / str(request.param)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "a.txt"
    write_atomic(path, "old")
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_in_an_unusable_folder(unusable: Path) -> None:
    with pytest.raises(UserError, match=rf"{unusable}.*: cannot be written \(.+\); choose another place"):
        write_atomic(unusable / "a.txt", "new")


def test_a_folder_does_not_become_a_file_and_no_temporary_file_is_left(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: cannot be written"):
        write_atomic(tmp_path / "folder", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_is_copied_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"\x00new")
    copy_atomic(tmp_path / "old", tmp_path / "made" / "new")
    assert (tmp_path / "made" / "new").read_bytes() == b"\x00new"
    os.mkfifo(tmp_path / "pipe")
    for source, target in (("pipe", "made/new"), ("none", "made/new"), ("old", "made")):
        with pytest.raises(UserError, match=rf"{source}: cannot be copied to .*{target} \(.+\)"):
            copy_atomic(tmp_path / source, tmp_path / target)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "old", "pipe"]


def test_an_unusable_folder_is_found_before_the_work(unusable: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{unusable}: cannot be written \(.+\); choose another folder"):
        require_writable(unusable)
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "kept"


def test_a_writable_folder_is_created_and_stays_empty(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_a_place_that_another_process_removes_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []
    write = files._try_writing

    def try_writing(folder: Path) -> None:
        tried.append(folder)
        if len(tried) == 1:
            folder.rmdir()
        write(folder)

    monkeypatch.setattr(files, "_try_writing", try_writing)
    (tmp_path / "results").mkdir()
    require_place(tmp_path / "results" / "records")
    assert tried == [tmp_path / "results", tmp_path] and not list(tmp_path.iterdir())
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(UserError, match=r"link: cannot be written \(No such file or directory\)"):
        require_place(tmp_path / "link" / "records")


def test_the_hash_of_several_files_covers_names_and_hashes_in_any_order() -> None:
    assert sha256_of_files({"a": "1", "b": "2"}) == sha256_of_files({"b": "2", "a": "1"})
    assert sha256_of_files({"a": "1", "b": "2"}) != sha256_of_files({"a": "2", "b": "1"})


def test_a_new_folder_that_fails_keeps_what_was_written(tmp_path: Path) -> None:
    for written, left in (([], set()), (["file"], {"new.partial/file"})):
        with pytest.raises(ValueError, match="failed"), new_folder(tmp_path / "new") as folder:
            for name in written:
                (folder / name).write_text("x")
            raise ValueError("failed")
        assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == left
    assert not (tmp_path / "new").exists()


def test_a_new_folder_may_be_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with new_folder(Path(".")) as folder:
        (folder / "file").write_text("x")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["file"]
    assert not (tmp_path / "here.partial").exists()


def test_a_new_folder_behind_a_link_is_filled_beside_it(tmp_path: Path) -> None:
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "data")
    with new_folder(tmp_path / "link") as folder:
        assert folder.parent == tmp_path / "disk"
        (folder / "file").write_text("x")
    assert (tmp_path / "link" / "file").read_text() == "x" and (tmp_path / "link").is_symlink()


def test_where_a_file_system_begins_no_folder_can_be_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(UserError, match="give a folder in it"), new_folder(tmp_path / "new"):
        pytest.fail("the work has begun")
