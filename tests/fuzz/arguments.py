"""Command lines and files of settings."""

import importlib
import json
import pkgutil
import random
from collections.abc import Mapping
from pathlib import Path

import harness.commands
from tests.fuzz.kind import command, parser
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
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "run": ("--data-root", "nowhere"),
    "verify": ("@",),
    "predict": ("--adapter", "@"),
    "table": ("--results", "nowhere"),
    "compare": ("@", "@", "--results", "nowhere"),
    "audit": ("--results", "nowhere"),
    "readme": ("--results", "nowhere"),
    "report": ("--results", "nowhere"),
    "plot": ("@", "--out", "@", "--results", "nowhere"),
    "methods": (),
    "params": ("--model", "tiny", "--methods", "memvp"),
    "flops": ("--model", "tiny", "--methods", "memvp"),
    "speed": ("--model", "@"),
    "push": ("@", "--repo", "@", "--dry-run"),
    "doctor": ("--data-root", "nowhere"),
    "score scienceqa": ("--problems", "@", "--splits", "@", "--predictions", "@"),
    "score coco": ("--references", "@", "--predictions", "@"),
    "data check": ("@", "--data-root", "@"),
    "data fetch": ("@",),
    "records config": ("@",),
    "results merge": ("@", "@", "--results", "@"),
    "results push": ("--repo", "@", "--dry-run", "--results", "nowhere"),
    "@": ("@",),
}
"""Each command with arguments with which it ends soon, whatever else it is given. Those that cannot are missing."""
_WRITES_ELSEWHERE = ("--save-config", "--plot", "--into")
"""Options that name a file or folder to be made, which may be anywhere."""


def make_options(folder: Path) -> None:
    """Write the arguments of a command, after loading what commands load: a forked process then need not."""
    for module in pkgutil.iter_modules(harness.commands.__path__):
        importlib.import_module(f"harness.commands.{module.name}")
    importlib.import_module("harness.cost.flops_table")
    (folder / "arguments.json").write_text(json.dumps(["run", "--data-root", "nowhere"]))


def change_options(folder: Path, chance: random.Random) -> str:
    """Replace them by a command with up to two of its options, whose values are odd."""
    name = chance.choice(list(_COMMANDS))
    parts = [*name.split(), *_COMMANDS[name]]
    if options := _options(name):
        for option in chance.sample(options, min(chance.randint(1, 2), len(options))):
            parts += [option, {"--set": "%", "--submitit": "timeout_min=@"}.get(option) or chance.choice("#@")]
    arguments = [_argument(part, chance) for part in parts]
    (folder / "arguments.json").write_text(json.dumps(arguments))
    return " ".join(arguments)[:200]


def _options(name: str) -> list[str]:
    """Return the options of a command that take a value."""
    found = parser()
    for part in name.split():
        found = found.commands.get(part) if hasattr(found, "commands") else None
    given = [parameter for parameter in getattr(found, "params", ()) if parameter.param_type_name == "option"]
    names = [parameter.opts[-1] for parameter in given if not parameter.is_flag]
    return [name for name in names if name not in _WRITES_ELSEWHERE]


def _argument(part: str, chance: random.Random) -> str:
    if part == "%":
        from harness.config.recipe import CaptionRecipe
        from methods import get_method

        fields = [*CaptionRecipe.model_fields, *get_method("memvp").Config.model_fields, "memvp.adapter_dim", "lr", ""]
        value = chance.choice(ODD)
        texts = ("[" * 3000, "9" * 5000, '"\\ud800"', "\x1b[31m", "[2, 3]", "1", "true", json.dumps(value))
        return f"{chance.choice(fields)}={chance.choice(texts)}"
    if part[-1:] not in ("#", "@"):
        return part
    return part[:-1] + chance.choice(_NUMBERS if part[-1] == "#" else _TEXTS)


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
