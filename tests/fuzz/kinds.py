"""What is fuzzed: for each kind, a valid folder, what is changed in it, and what a command then does with it."""

import importlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import ODD, mutate


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        make: writes a valid example into a folder.
        use: does with the folder what a command does.
        change: changes the folder.
    """

    make: Callable[[Path], object]
    use: Callable[[Path], object]
    change: Callable[[Path, random.Random], str]


def one_file(*patterns: str) -> Callable[[Path, random.Random], str]:
    """Return a change that mutates one of the files that match; it returns the name of the file."""

    def change(folder: Path, chance: random.Random) -> str:
        path = chance.choice(sorted(path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()))
        path.write_bytes(mutate(path.read_bytes(), chance))
        return path.name

    return change


def command(*arguments: object) -> None:
    """Run a command; its errors are raised, and its output goes where the output of the process goes."""
    from harness import cli, typed

    texts = [str(argument) for argument in arguments]
    typed.require_utf8(texts)
    cli.app(texts, standalone_mode=False)


# Records


def make_records(folder: Path) -> None:
    """Write records of every kind, one of them in a search."""
    from harness.records import write_predictions, write_record
    from tests.record_factory import make, speed

    for record in (make("memvp"), make("dehvf"), make("oracle", kind="oracle"), speed("lavin", 1, 1)):
        path = write_record(record, folder)
        write_predictions(path, [{"qid": "1", "choice": 0, "gold": 0}, {"qid": "2", "choice": None, "gold": 0}])
    write_record(make("memvp"), folder / "search")


def use_records(folder: Path) -> None:
    """Make every table, the audit, a comparison and the page."""
    for table in (1, 2, 3, 4):
        for format in ("markdown", "latex", "csv", "json", "html"):
            command("table", "--table", table, "--format", format, "--results", folder)
    command("audit", "--results", folder)
    command("readme", "--results", folder)
    command("compare", "dehvf", "memvp", "--results", folder)


def make_page(folder: Path) -> None:
    """Write records with everything that a page shows beside them."""
    from tests.harness.page.conftest import fill

    fill(folder)


def use_page(folder: Path) -> None:
    """Make the page."""
    command("report", "--results", folder, "--out", folder / "site")


# Data sets and predictions


def make_scienceqa(folder: Path) -> None:
    """Write a small ScienceQA set, and predictions for it."""
    from tests.harness.data.conftest import ScienceQAFolder

    ScienceQAFolder(folder)
    rows = [{"qid": "4", "choice": 1, "gold": 1}, {"qid": "10", "choice": None, "gold": 0}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "results.json").write_text(
        json.dumps({"results": {"4": 1, "10": 0}, "outputs": {"4": "The answer is A."}})
    )
    (folder / "plain.json").write_text(json.dumps({"4": 1, "10": 0}))


def use_scienceqa(folder: Path) -> None:
    """Check the set, and score the predictions."""
    command("data", "check", "scienceqa", "--data-root", folder)
    use_predictions(folder)


def use_predictions(folder: Path) -> None:
    """Score every file of predictions. A file that is refused does not spare the others."""
    from harness.errors import UserError

    files = ["--problems", folder / "problems.json", "--splits", folder / "pid_splits.json"]
    refusals = []
    for name in ("rows.jsonl", "results.json", "plain.json"):
        try:
            command("score", "scienceqa", *files, "--predictions", folder / name)
        except UserError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def make_coco(folder: Path) -> None:
    """Write a small caption set, and predicted captions."""
    from tests.harness.data.conftest import CocoFolder

    CocoFolder(folder)
    captions = [{"image_id": number, "caption": "a cat"} for number in (3, 4)]
    (folder / "captions.json").write_text(json.dumps(captions))
    (folder / "annotations.json").write_text(json.dumps({"images": [{"id": 3}], "annotations": captions}))


def use_coco(folder: Path) -> None:
    """Check the set, and read what a scorer reads. Scoring itself starts Java."""
    from harness.evaluation.score_coco import read_captions, read_references

    command("data", "check", "coco", "--data-root", folder)
    read_references(folder / "dataset_coco.json")
    read_references(folder / "annotations.json")
    read_captions(folder / "captions.json")


def make_images(folder: Path) -> None:
    """Write images of several formats."""
    from PIL import Image

    noise = Image.effect_noise((48, 32), 60)
    noise.convert("RGB").save(folder / "a.png")
    noise.convert("P").save(folder / "b.png", transparency=0)
    noise.convert("I;16").save(folder / "c.png")
    noise.convert("RGB").save(folder / "d.jpg", progressive=True, quality=30)
    noise.convert("CMYK").save(folder / "e.jpg")


def use_images(folder: Path) -> None:
    """Decode and resize every image."""
    from harness.data.imagefile import load_image
    from harness.data.images import IMAGENET_MEAN, IMAGENET_STD, ImagePreprocessor

    preprocess = ImagePreprocessor(224, IMAGENET_MEAN, IMAGENET_STD)
    for path in sorted(folder.iterdir()):
        preprocess(load_image(path))


# Backbones and adapters


def _spec(folder: Path) -> Any:
    from harness.config.presets import resolve_spec

    return resolve_spec("tiny", str(folder / "llm"), f"local-dir:{folder / 'clip'}")


def make_backbone(folder: Path) -> None:
    """Write a random language model and vision tower, and an untrained adapter of them."""
    from harness.backbone.loader import load_backbone
    from harness.files import write_atomic
    from methods import get_method
    from methods.checkpoint import save_adapter
    from tests.backbones import tiny_config
    from tests.folders import save_clip, save_llm

    save_llm(folder / "llm")
    save_clip(folder / "clip")
    spec = _spec(folder)
    backbone = load_backbone(spec)
    digest = backbone.fingerprint()
    method_class = get_method("dehvf")
    method = method_class(backbone, tiny_config(method_class, backbone))
    saved = {"model": "fuzzed", "llm": spec.llm, "clip": spec.clip, "weight_hash": digest, "dtype": "float32"}
    save_adapter(folder / "adapter", method, {"backbone": saved, "task": "scienceqa", "train": {}}, write_atomic)


def use_llm(folder: Path) -> None:
    """Load the backbone with the folder's language model."""
    from harness.backbone.loader import load_backbone

    load_backbone(replace(_spec(SOURCES["backbone"]), llm=str(folder / "llm")))


def use_clip(folder: Path) -> None:
    """Load the backbone with the folder's vision tower."""
    from harness.backbone.loader import load_backbone

    load_backbone(replace(_spec(SOURCES["backbone"]), clip=f"local-dir:{folder / 'clip'}"))


def use_adapter(folder: Path) -> None:
    """Answer a question with the adapter."""
    from harness.run.predict import load_adapter

    load_adapter(folder / "adapter").answer("which?")


SOURCES: dict[str, Path] = {}
"""Where the valid folders are, by the name of the function that made them."""


# Options

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
        from harness.config.recipes import CaptionRecipe
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


KINDS = {
    "records": Kind(make_records, use_records, one_file("*.json", "*.jsonl")),
    "files of a page": Kind(
        make_page, use_page, one_file("*.history.json", "*.diagnostics.json", "questions.json", "*.jsonl")
    ),
    "problems": Kind(make_scienceqa, use_scienceqa, one_file("problems.json")),
    "splits": Kind(make_scienceqa, use_scienceqa, one_file("pid_splits.json")),
    "Karpathy JSON": Kind(make_coco, use_coco, one_file("*.json")),
    "predictions": Kind(make_scienceqa, use_predictions, one_file("rows.jsonl", "results.json", "plain.json")),
    "images": Kind(make_images, use_images, one_file("*")),
    "adapters": Kind(make_backbone, use_adapter, one_file("adapter/*")),
    "--llm folders": Kind(make_backbone, use_llm, one_file("llm/*")),
    "--clip folders": Kind(make_backbone, use_clip, one_file("clip/*")),
    "options": Kind(make_options, use_options, change_options),
    "--config files": Kind(make_settings, use_settings, change_settings),
}
