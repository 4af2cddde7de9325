"""What the user typed: the arguments of the command line, and the texts of options that stand for several values."""

import json
import re
from collections.abc import Sequence
from typing import Any

import typer

from harness.errors import UserError

MOST_THREADS = 1024
"""`--threads` takes no more: each thread takes memory, also on a machine with fewer cores."""
LONGEST_SETTING = 10_000
"""Characters of the value of a setting as text."""


def require_utf8(arguments: Sequence[str]) -> None:
    """Check that every argument is text, before one of them reaches a record or a file.

    Raises:
        UserError: an argument contains bytes that are not UTF-8.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{argument}: is not in UTF-8; give it in UTF-8, and rename files if need be") from error


def is_given(context: typer.Context, name: str) -> bool:
    """Return whether a parameter of a command is on the command line: no default, and not from a settings file."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def given_options(context: typer.Context) -> list[str]:
    """Return the options on the command line, such as `--text-length`, in the order of the help."""
    return [max(one.opts, key=len) for one in context.command.params if one.name and is_given(context, one.name)]


def names(option: str, text: str) -> tuple[str, ...]:
    """Return names that are separated by commas.

    Raises:
        UserError: there is no name.
    """
    found = _parts(text)
    if not found:
        raise UserError(f"{option} {text}: contains no name; give names separated by commas, or leave the option out")
    return found


def choices(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the options of a question: one per text, or those that a single text separates by commas.

    Raises:
        UserError: a single text contains no option.
    """
    if len(texts) != 1:
        return tuple(texts)
    found = _parts(texts[0])
    if not found:
        raise UserError(f"--choices {texts[0]}: contains no option; give options separated by commas, or leave it out")
    return found


def integers(option: str, text: str) -> tuple[int, ...]:
    """Return whole numbers that are separated by commas, each once.

    Raises:
        UserError: a part is no whole number.
    """
    parts = _parts(text)
    if not all(re.fullmatch(r"-?[0-9]{1,100}", part) for part in parts):  # `int` also takes 1_0
        raise UserError(f"{option} {text}: not a list of whole numbers; give numbers separated by commas, e.g. 0,1,2")
    return tuple(dict.fromkeys(map(int, parts)))


def count_or_auto(option: str, text: str, least: int = 1) -> int | None:
    """Return the number that an option gives, or None for `auto`.

    Raises:
        UserError: the text is neither.
    """
    if text == "auto":
        return None
    if not (text.isdecimal() and text.isascii() and len(text) < 10 and int(text) >= least):
        raise UserError(f"{option} {text}: neither auto nor a whole number from {least} upwards; give one of them")
    return int(text)


def part(option: str, text: str) -> tuple[int, int]:
    """Return the number of a part, from 1, and the number of parts, as in `2/8`.

    Raises:
        UserError: the text is something else.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, parts = (int(digits) for digits in found.groups()) if found else (0, 0)
    if not 1 <= number <= parts:
        raise UserError(f"{option} {text}: is not I/N with I from 1 to N; give, for example, 2/8")
    return number, parts


def parameters(option: str, text: str) -> dict[str, Any]:
    """Return pairs such as `timeout_min=600,slurm_partition=gpu` as a dictionary. A comma may be part of a value.

    A value that is not JSON is taken as text.

    Raises:
        UserError: the text is something else, or a value is too long or nested too deeply.
    """
    found: dict[str, Any] = {}
    for pair in re.split(r",(?=\w+=)", text) if text else ():
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier() or not value:
            raise UserError(f"{option} {pair}: is not KEY=VALUE; give, for example, timeout_min=600")
        found[key] = value_of(f"{option} {key}", value)
    return found


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the pairs of `--set` as a dictionary. A value that is not JSON is taken as text.

    Raises:
        UserError: a pair has no equals sign, or a value is too long or nested too deeply.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: has no equals sign; give KEY=VALUE")
        found[key.strip()] = value_of(f"--set {key.strip()}", value)
    return found


def value_of(what: str, text: str) -> Any:
    """Return the value that a text behind `--set KEY=` means: JSON where it is JSON, else the text itself.

    Args:
        what: the option, or the file and field, that the text is from.
        text: the text.

    Raises:
        UserError: the text is too long or nested too deeply.
    """
    if len(text) > LONGEST_SETTING:
        raise UserError(f"{what}: has {len(text):,} characters; give at most {LONGEST_SETTING:,}")
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError:
        return text
    except UnicodeEncodeError as error:
        raise UserError(f"{what}: contains half of a surrogate pair; give whole characters") from error
    except ValueError as error:
        raise UserError(f"{what}: a number with too many digits; give a shorter one") from error
    except RecursionError as error:
        raise UserError(f"{what}: brackets nested too deeply; give a plain value") from error


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
