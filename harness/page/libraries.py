"""The JavaScript libraries that the page contains. `vendor/vendor.toml` has their versions, licences and hashes."""

import tomllib
from functools import cache
from hashlib import sha256
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from harness.errors import UserError

_FOLDER = files("harness.page") / "vendor"


class Library(BaseModel):
    """One file of an npm package.

    Attributes:
        name: name of the file here.
        package: the npm package.
        version: its version.
        path: path of the file in the package.
        licence: SPDX name of its licence.
        licence_file: name of the file with the text of the licence.
        sha256: SHA-256 of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    package: str
    version: str
    path: str
    licence: str
    licence_file: str
    sha256: str


@cache
def libraries() -> tuple[Library, ...]:
    """Return the entries of vendor.toml, in the order in which the page loads the files."""
    content = tomllib.loads((_FOLDER / "vendor.toml").read_text(encoding="utf-8"))
    return tuple(Library.model_validate(entry) for entry in content["files"])


def text_of(library: Library) -> str:
    """Return the text of a library's file, safe to write into a `script` or `style` element.

    Raises:
        UserError: the file is not the one that vendor.toml describes.
    """
    content = (_FOLDER / library.name).read_bytes()
    if sha256(content).hexdigest() != library.sha256:
        raise UserError(
            f"harness/page/vendor/{library.name}: is not {library.path} of {library.package} {library.version}; "
            "install this project again"
        )
    text = content.decode("utf-8")
    assert not any(end in text.lower() for end in ("</script", "</style", "<!--")), f"{library.name} would end early"
    return text
