"""Read JSON files that are not trusted: no duplicate keys, and one clear message for every defect."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import read_file

_LONGEST_PLACE = 200
"""No place in a file is described in more characters."""
MOST_CONTAINERS = 4_000_000
MOST_COMMAS = 20_000_000
"""JSON with more opening brackets, or more commas, is not read, because its values would take gigabytes of memory.

They are counted in the text, those in strings too, because counting takes no memory. An empty array of three bytes
takes more than 70 bytes of memory, an object with one entry more than 200, a short string more than 50. Of the real
files, Karpathy's dataset_coco.json is the largest by far. Each of its 123,287 images has seven arrays and six objects,
together 1.6 million, and about 79 commas, mostly between the tokens of its five sentences, together 9.7 million. The
21,208 problems of ScienceQA have 43,000 arrays and objects and 0.5 million commas.
"""


class DuplicateKeyError(ValueError):
    """A JSON object contains the same key twice; `keys` lists these keys. `json` would keep the last value."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(f"key given twice: {', '.join(keys[:5])}")
        self.keys = keys


class NotJsonError(UserError):
    """A text is not valid JSON. It may still have JSON in each line."""


def _load(text: str | bytes) -> Any:
    """Return the JSON value; raises DuplicateKeyError where it is valid, but an object has a key twice."""
    twice: list[list[str]] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs) and not twice:
            twice.append(repeated(key for key, _ in pairs))
        return result

    value = json.loads(text, object_pairs_hook=build)
    if twice:
        raise DuplicateKeyError(twice[0])
    return value


def repeated(keys: Iterable[str]) -> list[str]:
    """Return the keys that occur more than once, each once, in the order of their second occurrence."""
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for key in keys:
        if key in seen:
            twice[key] = None
        seen.add(key)
    return list(twice)


def _require_bounded(text: str | bytes, source: str, more_containers: int = 0) -> None:
    """Raise a UserError if the values of a JSON text would take very much memory."""
    brackets: tuple[Any, Any, Any] = ("[", "{", ",") if isinstance(text, str) else (b"[", b"{", b",")
    arrays, objects, commas = (text.count(bracket) for bracket in brackets)
    for number, most, what in (
        (arrays + objects + more_containers, MOST_CONTAINERS, "arrays, objects and lines"),
        (commas, MOST_COMMAS, "commas"),
    ):
        if number > most:
            raise UserError(
                f"{source}: has {number:,} {what}, more than the {most:,} that are read; give a smaller file"
            )


def parse_json(text: str | bytes, source: str) -> Any:
    """Parse JSON text.

    Args:
        text: the text, or its bytes in UTF-8.
        source: what messages call the text, usually its file.

    Returns:
        the JSON value.

    Raises:
        NotJsonError: the text is not UTF-8, is not JSON, or is nested too deeply.
        UserError: it has too many values, an object contains a key twice, or a string is no text (half of a surrogate
            pair).
    """
    _require_bounded(text, source)
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")  # json would take other encodings, too, and halves of surrogate pairs
        value = _load(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # fails where a file of ours could not contain the string
        return value
    except DuplicateKeyError as error:
        raise UserError(f"{source}: {error}; keep one of them") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{source}{_place_of(value)}: contains half of a surrogate pair; correct the file") from error
    except (ValueError, RecursionError) as error:
        raise NotJsonError(f"{source}: not valid JSON ({error}); correct the file") from error


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
        UserError: a line is not valid JSON, as in `parse_json`; names the line. Or there are too many lines or values.
    """
    _require_bounded(content, source, content.count(b"\n"))
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


def read_json_or_lines(path: Path) -> tuple[Any, list[tuple[str, Any]] | None]:
    """Read a file that contains one JSON value, or one in each line; its name does not matter.

    A file with a single line is taken as one value.

    Returns:
        The value and None; or None and the values of the lines, see `parse_json_lines`.

    Raises:
        UserError: the file is missing, cannot be read, or is neither.
    """
    content = _read(path)
    try:
        return parse_json(content, str(path)), None
    except NotJsonError:
        if not _has_lines(content, path.suffix):
            raise
        return None, parse_json_lines(content, str(path))


def _has_lines(content: bytes, suffix: str) -> bool:
    """Return whether a text that is no JSON value is meant to have one per line.

    Args:
        content: the bytes of the text.
        suffix: ending of the file's name. It decides only where the first line is no JSON value.
    """
    first, _, more = content.strip().partition(b"\n")
    return suffix == ".jsonl" or (bool(more) and _is_json(first))


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        return read_file(Path(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give the right folder or file") from error
