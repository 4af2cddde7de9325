"""Reading JSON that somebody else wrote: no duplicate keys, one clear error."""

import json
from pathlib import Path
from typing import Any

from harness.errors import UserError


class DuplicateKeyError(ValueError):
    """A JSON object holds the same key twice; `keys` lists them (Python's reader would keep the last)."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(f"key given twice: {', '.join(keys)}")
        self.keys = keys


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice: dict[str, None] = {}
        for key, _ in pairs:
            if key in seen:
                twice[key] = None
            seen.add(key)
        raise DuplicateKeyError(list(twice))
    return result


def parse_json(text: str | bytes, source: str) -> Any:
    """Parse JSON text; `source` names it in errors.

    Raises:
        UserError: not UTF-8, not JSON, nested too deeply, or an object holds one key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except DuplicateKeyError as error:
        raise UserError(f"{source}: {error}; keep one of them") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid JSON ({error})") from error


def parse_json_lines(content: bytes, source: str) -> list[tuple[str, Any]]:
    """The JSON values of a file that holds one a line, each with its place for errors; empty lines are passed over.

    Raises:
        UserError: see `parse_json`; names the line.
    """
    # JSON escapes line feeds, but not the other line breaks that `splitlines` knows.
    lines = [(f"{source}, line {number}", line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    return [(place, parse_json(line, place)) for place, line in lines]


def read_json(path: Path) -> Any:
    """The JSON value in file `path`.

    Raises:
        UserError: the file is missing or unreadable, or see `parse_json`.
    """
    return parse_json(_read(path), str(path))


def read_json_lines(path: Path) -> list[tuple[str, Any]]:
    """What `parse_json_lines` finds in file `path`.

    Raises:
        UserError: see `read_json`; names the line.
    """
    return parse_json_lines(_read(path), str(path))


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give the right folder or file") from error
