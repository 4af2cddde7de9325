"""The settings of runs as a TOML file: the options of `run` by their names, and the pairs of `--set` in a table.

    methods = ["dehvf", "memvp"]
    seeds = [0, 1, 2]
    data-root = "/data/scienceqa"

    [set]
    base_lr = 0.01

    [set.dehvf]
    fuser_dim = 32

A table below `[set]` belongs to one method, as `--set dehvf.fuser_dim=32` does. A text in `[set]` means what it means
behind `--set`, so `max_grad_norm = "null"` is the empty value, for which TOML has no word.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from harness.config.presets import PRESETS, base_model
from harness.errors import UserError, first_line
from harness.escape import toml
from harness.files import read_file
from harness.records import Record, read_record
from harness.typed import LONGEST_SETTING, value_of

SET = "set"
"""The table of the pairs of `--set`."""
GENERATED = ("mini", "mini-captions")
"""The data sets that the harness makes itself, so that no folder must be given."""


@dataclass(frozen=True)
class Settings:
    """The content of a settings file.

    Attributes:
        options: option without its dashes, such as `data-root` -> value.
        settings: key of `--set`, such as `base_lr` or `dehvf.fuser_dim` -> value.
    """

    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def read_settings(path: Path) -> Settings:
    """Read a settings file. The names of the options are not checked here.

    Raises:
        UserError: the file cannot be read, is not TOML, `set` is not a table, or a text in it is too long.
    """
    try:
        options = tomllib.loads(read_file(path).decode("utf-8"))
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({error.strerror}); give a TOML file") from error
    except (ValueError, RecursionError) as error:  # tomllib raises these two as well, for long numbers and deep arrays
        raise UserError(f"--config {path}: is not TOML ({first_line(error)}); correct the file") from error
    table = options.pop(SET, {})
    if not isinstance(table, dict):
        raise UserError(f"--config {path}: {SET}: is not a table; write [{SET}] and one KEY = VALUE per line below it")
    settings: dict[str, Any] = {}
    for key, value in table.items():
        pairs = {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {key: value}
        place = f"--config {path}: {SET}"
        settings |= {name: value_of(f"{place}.{name}", v) if isinstance(v, str) else v for name, v in pairs.items()}
    return Settings(options, settings)


def settings_text(content: Settings, comments: Sequence[str] = ()) -> str:
    """Return the text of a settings file. Options that are None are left out.

    Args:
        content: the options and the pairs of `--set`.
        comments: lines that are put before them.

    Raises:
        UserError: a value is too long to be read again, or a setting has the name of a method that has settings.
    """
    table: dict[str, Any] = {}
    for key, value in content.settings.items():
        owner, _, name = key.rpartition(".")
        place = table.setdefault(owner, {}) if owner else table
        if not isinstance(place, dict) or isinstance(place.get(name), dict):
            raise UserError(f"--set {key}: one name stands for a setting and for a method; leave one of them out")
        place[name] = _plain(f"--set {key}", value)
    paths = {key: str(value) if isinstance(value, Path) else value for key, value in content.options.items()}
    options = {key: value for key, value in paths.items() if value is not None}
    head = "".join(f"# {line}\n" for line in comments)
    return toml(head + tomli_w.dumps({**options, **({SET: table} if table else {})}).rstrip("\n") + "\n")


def _plain(what: str, value: Any) -> Any:
    """Return a value of `--set` as TOML has it, or as a text in JSON where TOML has no word for it.

    Args:
        what: the option, or the file and field, that the value is from.
        value: the value.

    Raises:
        UserError: the text is too long to be read again.
    """
    if not (_means_itself(value) if isinstance(value, str) else _is_toml(value)):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        value_of(what, value)
    return list(value) if isinstance(value, tuple) else value


def _means_itself(text: str) -> bool:
    try:
        return bool(value_of(SET, text) == text)
    except UserError:
        return len(text) > LONGEST_SETTING  # in quotation marks it would be too long as well


def _is_toml(value: Any) -> bool:
    """Return whether a value is a plain one of TOML, or a list of such. Lists in lists may be too deep to write."""
    return all(isinstance(part, str | int | float) for part in (value if isinstance(value, list | tuple) else [value]))


def settings_of_record(path: Path) -> str:
    """Return a settings file that makes the run of a record again.

    All fields of recipe and method are written, so that the file means the same when the recipes have changed. Of a
    folder, a record holds no path: a comment says which option the user has to give.

    Args:
        path: the file of the record.

    Raises:
        UserError: the file is no record, the record is no run of `run`, or no settings file can hold its config.
    """
    record = read_record(path)
    if record.kind == "speed":
        raise UserError(f"{record.run_id}: was made by `speed`, not by `run`; give the record of a run")
    backbone, environment = record.backbone, record.environment
    comments = [f"The run {record.run_id}"]
    if record.data.name not in GENERATED:
        comments.append(f"Give the data folder as well: --data-root DIR ({record.data.name})")
    if record.data.skipped_images:
        comments.append(f"{record.data.skipped_images} samples were left out because their image could not be read")
    preset = PRESETS.get(base_model(record.model, backbone.quantize))
    parts: dict[str, Any] = {"model": preset.name} if preset else {"llm": backbone.llm, "clip": backbone.clip}
    if preset is None:
        comments.append("Of a folder, the record holds the last name only: then give --llm and --clip as well")
    options = {
        "methods": [record.method],
        "ablation": record.variant,
        **parts,
        "quantize": backbone.quantize,
        "task": record.task,
        "protocol": record.protocol,
        "seeds": [record.seed],
        "weights": "random" if backbone.weights == "random" else "pretrained",
        "limit": record.data.limit,
        "skip-bad-images": record.data.skipped_images > 0,
        "device": "cpu" if environment.gpu is None else "cuda",
        "dtype": backbone.dtype,
        "micro-batch": None if record.micro_batch is None else str(record.micro_batch),
        "threads": environment.threads if environment.gpu is None else None,
        "deterministic": bool(environment.deterministic),
    }
    settings = {
        f"{owner}{name}": value
        for part, owner in (("train", ""), ("method", f"{record.method}."))
        for name, value in _config_part(path, record, part).items()
        if owner or name != "protocol"  # it has an option of its own
    }
    if record.tuning:  # without it, the run would say of every field that it was given with --set
        _plain(f"{path}: tuning", record.tuning)
        settings["tuning"] = record.tuning
    return settings_text(Settings(options, settings), comments)


def _config_part(path: Path, record: Record, part: str) -> Mapping[str, Any]:
    """Return a part of the config of a record, of which a settings file can hold everything.

    Raises:
        UserError: it cannot; the message names the field of the record.
    """
    fields = record.config.get(part)
    if not isinstance(fields, dict):
        return {}
    for name, value in fields.items():
        place = f"{path}: config.{part}.{name}"
        if "." in name or (part == "train" and name == record.method):  # it would be read as a table of a method
            raise UserError(f"{place}: is the name of no setting; repair the record or remove it")
        _plain(place, value)
    return fields
