"""Seeded mutations of files: of the values of JSON, and of bytes."""

import json
import random
from copy import deepcopy
from typing import Any

ODD = (
    None,
    True,
    -1,
    0,
    2**31,
    2**32 - 1,
    10**18,
    2**63 - 1,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "é\n\x1b[0m",
    "\x9b31m\u202e",
    "\ud800",
    "x" * 9_999,
    "x" * 100_000,
    "|<script>=1+1",
    "../x",
    [],
    {},
    [[]],
    [None],
    [[1], ["a", {"b": None}]],
)
"""Values that a field of JSON is replaced by."""


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Return a file's content with one to three mutations.

    Args:
        content: the content; if it is JSON, its values are mutated in three of four cases, otherwise its bytes.
        chance: where the choices come from.
    """
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict | list) or chance.random() < 0.25:
        return _mutate_bytes(content, chance)
    for _ in range(chance.randint(1, 3)):
        mutate_value(value, chance)
    return json.dumps(value).encode()


def mutate_value(value: Any, chance: random.Random) -> None:
    """Replace, remove or rename one value somewhere inside an object or array, in place."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = chance.choice(keys)
        if not isinstance(value[key], dict | list) or chance.random() < 0.3:
            break
        value = value[key]
    kind = chance.randrange(4)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, dict):
        value[f"{key}_"] = value.pop(key)
    else:
        value[key] = deepcopy(chance.choice(ODD))  # a later mutation may change it in place


def _mutate_bytes(content: bytes, chance: random.Random) -> bytes:
    """Cut the content, repeat a part of it, or change some of its first bytes, where formats keep their headers."""
    kind, place = chance.randrange(4), chance.randrange(len(content) + 1)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + content[max(0, place - 20) :]
    if kind == 2:
        return chance.choice((b"", b"[" * 50_000, b"\xff\xfe", b"{}", b"[]", b"null"))
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        if changed:
            changed[chance.randrange(min(len(changed), 2000))] = chance.randrange(256)
    return bytes(changed)
