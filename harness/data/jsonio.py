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


def read_json(path: Path) -> Any:
    """The JSON value in file `path`.

    Raises:
        UserError: the file is missing or unreadable, or see `parse_json`.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give the right folder or file") from error
    return parse_json(content, str(path))
