"""Files are whole or not there, and what cannot be written is one line."""

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.files import require_writable, write_atomic


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "a.txt"
    write_atomic(path, "old")
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=rf"{folder}.*: cannot be written \(.+\); give another"):
            write_atomic(folder / "a.txt", "new")
        with pytest.raises(UserError, match=rf"{folder}: cannot be written \(.+\); give another folder"):
            require_writable(folder)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: cannot be written"):
        write_atomic(tmp_path / "folder", "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"], "no temporary file is left"
    require_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
