"""Read JSON files that are not trusted: no duplicate keys, and one clear message for every defect."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import read_file

_LONGEST_PLACE = 200
"""No place in a file is described in more characters."""


class DuplicateKeyError(ValueError):
    """A JSON object contains the same key twice; `keys` lists these keys. `json` would keep the last value."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(f"key given twice: {', '.join(keys[:5])}")
        self.keys = keys


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build the dict of a JSON object; raises DuplicateKeyError where a key occurs twice."""
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
    """Parse JSON text.

    Args:
        text: the text, or its bytes in UTF-8.
        source: what messages call the text, usually its file.

    Returns:
        the JSON value.

    Raises:
        UserError: the text is not UTF-8, is not JSON, is nested too deeply, an object contains a key twice, or a string
            is no text (half of a surrogate pair).
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
        escaped = text.decode("latin-1") if isinstance(text, bytes) else text  # only to look for ASCII in it
        if "\\ud" in escaped.lower():
            json.dumps(value, ensure_ascii=False).encode()  # fails where a file of ours could not contain the string
        return value
    except DuplicateKeyError as error:
        raise UserError(f"{source}: {error}; keep one of them") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{source}{_place_of(value)}: contains half of a surrogate pair; correct the file") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid JSON ({error}); correct the file") from error


def _place_of(value: Any) -> str:
    """Return where in a JSON value the first string, or key of an object, has half of a surrogate pair.

    Each part is looked at once, however deep it is. A long place is cut behind its beginning.
    """
    place: list[str] = []
    levels = [_parts(value)]
    while levels:
        for key, part in levels[-1]:
            if _is_broken(key):
                return _listed([*place, "a key"])
            if isinstance(part, str) and _is_broken(part):
                return _listed([*place, key])
            if isinstance(part, dict | list):
                place.append(key)
                levels.append(_parts(part))
                break
        else:
            levels.pop()
            del place[-1:]
    return ""


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Return the parts of an object or array, each with its key or index as text; none of any other value."""
    if isinstance(value, dict):
        return iter(value.items())
    return ((str(index), part) for index, part in enumerate(value if isinstance(value, list) else ()))


def _listed(place: list[str]) -> str:
    text = "".join(f", {step}" for step in place)
    return text if len(text) <= _LONGEST_PLACE else f"{text[:_LONGEST_PLACE]}…"


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def parse_json_lines(content: bytes, source: str) -> list[tuple[str, Any]]:
    """Parse text with one JSON value per line; empty lines are ignored.

    Args:
        content: the bytes of the text, in UTF-8.
        source: what messages call the text, usually its file.

    Returns:
        for each value its place, such as `predictions.jsonl, line 3`, and the value itself.

    Raises:
        UserError: a line is not valid JSON, as in `parse_json`; names the line.
    """
    # Split at line feeds only: JSON strings may contain other line breaks, at which `splitlines` would cut them.
    lines = [(f"{source}, line {number}", line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    return [(place, parse_json(line, place)) for place, line in lines]


def read_json(path: Path, hashes: dict[str, str] | None = None) -> Any:
    """Return the JSON value in file `path`.

    Args:
        path: the file, which is read once.
        hashes: receives file name -> SHA-256 in hexadecimal of the bytes that were parsed.

    Raises:
        UserError: the file is missing, cannot be read, or is not valid JSON, as in `parse_json`.
    """
    content = _read(path)
    if hashes is not None:
        hashes[path.name] = hashlib.sha256(content).hexdigest()
    return parse_json(content, str(path))


def read_json_lines(path: Path) -> list[tuple[str, Any]]:
    """Return the values in file `path`, which contains one JSON value per line; see `parse_json_lines`.

    Raises:
        UserError: the file is missing, cannot be read, or a line is not valid JSON; names the line.
    """
    return parse_json_lines(_read(path), str(path))


def _read(path: Path) -> bytes:
    try:
        return read_file(Path(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give the right folder or file") from error
