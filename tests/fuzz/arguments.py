"""Command lines and files of settings."""

import importlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.kind import command
from tests.fuzz.mutations import ODD, mutate

_NUMBERS = ("0", "-1", "1", "9" * 400, "1" + "0" * 30, "nan", "inf", "1e999", "0x10", "²", "", "9" * 5000)
_TEXTS = (
    "\x1b[31m",
    "caf\udce9",
    ",",
    ",,",
    "x" * 5000,
    "../..",
    "/dev/null",
    "/dev/full",
    "\u202e",
    "[" * 3000,
    "{}",
    "",
)
_COMMANDS: Sequence[tuple[str, ...]] = (
    ("run", "--data-root", "nowhere", "--seeds", "#"),
    ("run", "--data-root", "nowhere", "--steps", "#"),
    ("run", "--data-root", "nowhere", "--epochs", "#"),
    ("run", "--data-root", "nowhere", "--limit", "#"),
    ("run", "--data-root", "nowhere", "--micro-batch", "#"),
    ("run", "--data-root", "nowhere", "--workers", "#"),
    ("run", "--data-root", "nowhere", "--log-seconds", "#"),
    ("run", "--data-root", "nowhere", "--methods", "@"),
    ("run", "--data-root", "nowhere", "--ablation", "@"),
    ("run", "--data-root", "nowhere", "--model", "@"),
    ("run", "--data-root", "nowhere", "--task", "@"),
    ("run", "--data-root", "nowhere", "--llm", "@"),
    ("run", "--data-root", "nowhere", "--device", "@"),
    ("run", "--data-root", "@"),
    ("run", "--data-root", "nowhere", "--set", "%"),
    ("run", "--data-root", "nowhere", "--set", "%", "--set", "%"),
    ("run", "--data-root", "nowhere", "--task", "coco", "--set", "%"),
    ("flops", "--model", "tiny", "--methods", "memvp", "--text-length", "#"),
    ("flops", "--model", "tiny", "--methods", "memvp", "--train-batch", "#"),
    ("flops", "--model", "tiny", "--methods", "memvp", "--visual-tokens", "#"),
    ("flops", "--model", "tiny", "--methods", "memvp", "--set", "%"),
    ("table", "--results", "@"),
    ("table", "--model", "@", "--results", "nowhere"),
    ("table", "--table", "#", "--results", "nowhere"),
    ("compare", "@", "@", "--results", "nowhere"),
    ("audit", "--results", "@"),
    ("predict", "--adapter", "@"),
    ("data", "check", "@", "--data-root", "@"),
    ("score", "scienceqa", "--problems", "@", "--splits", "@", "--predictions", "@"),
    ("score", "coco", "--references", "@", "--predictions", "@"),
    ("@", "@"),
)


def make_options(folder: Path) -> None:
    """Write the arguments of a command, after loading what commands load: a forked process then need not."""
    for module in ("run", "predict", "data", "score"):
        importlib.import_module(f"harness.commands.{module}")
    importlib.import_module("harness.cost.flops_table")
    (folder / "arguments.json").write_text(json.dumps(["run", "--data-root", "nowhere"]))


def change_options(folder: Path, chance: random.Random) -> str:
    """Replace them by other arguments."""
    arguments = [_argument(part, chance) for part in chance.choice(_COMMANDS)]
    (folder / "arguments.json").write_text(json.dumps(arguments))
    return " ".join(arguments)[:200]


def _argument(part: str, chance: random.Random) -> str:
    if part == "%":
        from harness.config.recipe import CaptionRecipe
        from methods import get_method

        fields = [*CaptionRecipe.model_fields, *get_method("memvp").Config.model_fields, "memvp.adapter_dim", "lr", ""]
        value = chance.choice(ODD)
        texts = ("[" * 3000, "9" * 5000, '"\\ud800"', "\x1b[31m", "[2, 3]", "1", "true", json.dumps(value))
        return f"{chance.choice(fields)}={chance.choice(texts)}"
    return chance.choice(_NUMBERS) if part == "#" else chance.choice(_TEXTS) if part == "@" else part


def use_options(folder: Path) -> None:
    """Run the command."""
    command(*json.loads((folder / "arguments.json").read_text()))


_SETTINGS = """\
methods = ["dehvf", "memvp"]
model = "tiny"
seeds = "0,1"
jobs = 2
epochs = 0.5
checkpoint-minutes = 5.0
workers = 0

[set]
base_lr = 0.02
"memvp.memory_length" = 8
betas = [0.9, 0.95]
"""
_VALUES = (*_NUMBERS, "true", "[[1]]", "{}", "{a = 1}", "1979-05-27", '"caf\\u00e9\\u001b[31m"', '"../x"', "[" * 3000)


def make_settings(folder: Path) -> None:
    """Write a settings file, after loading what `run` loads."""
    importlib.import_module("harness.commands.run")
    (folder / "settings.toml").write_text(_SETTINGS)


def change_settings(folder: Path, chance: random.Random) -> str:
    """Change the value or the name in a line, repeat a line, or mutate the bytes of the file."""
    lines = _SETTINGS.splitlines()
    place, kind = chance.randrange(len(lines)), chance.randrange(4)
    name, _, value = lines[place].partition(" = ")
    changed = (f"{name} = {chance.choice(_VALUES)}", f"{chance.choice(_TEXTS[2:])} = {value}", f"{lines[place]}\n" * 2)
    content = "\n".join([*lines[:place], *changed[kind : kind + 1], *lines[place + 1 :]])
    encoded = content.encode(errors="surrogatepass")
    (folder / "settings.toml").write_bytes(mutate(encoded, chance) if kind == len(changed) else encoded)
    return content[:200]


def use_settings(folder: Path) -> None:
    """Plan the runs of the settings file."""
    command("run", "--config", folder / "settings.toml", "--data-root", "nowhere", "--dry-run")
