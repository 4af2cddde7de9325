"""The libraries in the page are the files that vendor.toml describes."""

from importlib.resources import files
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.page import libraries


@pytest.mark.parametrize("library", libraries.libraries(), ids=lambda library: library.name)
def test_a_library_is_the_file_that_is_described(library: libraries.Library) -> None:
    assert libraries.text_of(library)
    licence = (files("harness.page") / "vendor" / library.licence_file).read_text(encoding="utf-8")
    assert library.licence == "MIT" and "MIT" in licence and "THE SOFTWARE IS PROVIDED" in licence.upper()


def test_every_file_is_described() -> None:
    there = {item.name for item in (files("harness.page") / "vendor").iterdir()}
    named = {name for library in libraries.libraries() for name in (library.name, library.licence_file)}
    assert there == named | {"vendor.toml"}


def test_a_changed_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = libraries.libraries()[1]
    (tmp_path / library.name).write_text("alert(1)")
    monkeypatch.setattr(libraries, "_FOLDER", tmp_path)
    with pytest.raises(UserError, match=rf"{library.name}: is not .* of {library.package} {library.version}"):
        libraries.text_of(library)
