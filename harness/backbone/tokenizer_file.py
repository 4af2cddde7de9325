"""What `tokenizers` does not check in a tokenizer.json: rules that make a text grow without bound."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from harness.data.jsonio import read_json
from harness.errors import UserError

TOKENIZER = "tokenizer.json"
_MOST_GROWTH = 1_000
_MOST_ENTRIES = 1_000
"""No tokenizer puts more special tokens around a text."""
_ADVICE = "give the tokenizer of a real model"


def require_bounded_growth(folder: Path, option: str) -> None:
    """Check that the rules of a tokenizer make no text very much longer. Each rule may act on what the last one wrote.

    Args:
        folder: the folder of the model; nothing is checked where it has no tokenizer.json.
        option: the option that names it, and its value.

    Raises:
        UserError: the rules do, or the file is not JSON.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        return
    content = read_json(path)
    if not isinstance(content, dict):
        return  # `tokenizers` says what is wrong
    for stage in ("normalizer", "pre_tokenizer", "decoder"):
        replaced = [rule.get("content") for rule in _rules(content.get(stage)) if rule.get("type") == "Replace"]
        growth = prod(max(1, len(text)) for text in replaced if isinstance(text, str))
        if growth > _MOST_GROWTH:
            raise UserError(f"{option}: {path.name}: {stage} makes a text up to {growth:,} times as long; {_ADVICE}")
    around = _rules(content.get("post_processor"))
    if (
        count := sum(len(value) for rule in around for value in rule.values() if isinstance(value, list))
    ) > _MOST_ENTRIES:
        raise UserError(f"{option}: {path.name}: post_processor has {count:,} entries; {_ADVICE}")


def _rules(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object inside a value."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            yield found
            left += found.values()
        elif isinstance(found, list):
            left += found
