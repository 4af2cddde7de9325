"""The command line: options in, calls out. No logic lives here, and nothing heavy is imported before it is needed."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness.errors import UserError

EXIT_CODES = "Exit status: 0 done, 1 a run failed, 2 wrong use or something missing, 130 interrupted."

PACKAGE = "peft-vl-bench"

app = typer.Typer(
    name=PACKAGE,
    help="Reproducibility benchmark for parameter-efficient vision-language fine-tuning.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
score_app = typer.Typer(help="Score predictions that are already there.", no_args_is_help=True)
data_app = typer.Typer(help="Look at a data folder before training on it.", no_args_is_help=True)
app.add_typer(score_app, name="score")
app.add_typer(data_app, name="data")


class TableFormat(StrEnum):
    """How a table is written."""

    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"
    html = "html"


class TextFormat(StrEnum):
    """For people or for programs."""

    markdown = "markdown"
    json = "json"


Results = Annotated[Path, typer.Option("--results", help="Folder of the records.")]


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(version(PACKAGE))
        except PackageNotFoundError as error:
            raise UserError(f"--version: {PACKAGE} is not installed; run `pip install -e .` in its folder") from error
        raise typer.Exit


@app.callback()
def options_of_every_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options that stand before the subcommand. Each of them acts in its own callback."""


def _epilog(example: str) -> str:
    return f"Example: `{example}`\n\n{EXIT_CODES}"


@app.command(epilog=_epilog("python -m harness run --methods dehvf,memvp --model tiny --seeds 0,1,2"))
def run(
    methods: Annotated[
        str, typer.Option(help="Methods, comma-separated; `all`; reference rows `blind` and `oracle`.")
    ] = "",
    ablation: Annotated[str, typer.Option(help="Ablations of the methods instead: names, or `all`.")] = "",
    model: Annotated[str, typer.Option(help="Backbone preset: tiny, 7b, 13b.")] = "tiny",
    task: Annotated[str, typer.Option(help="What to train on and score.")] = "scienceqa",
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0",
    data_root: Annotated[
        Path | None, typer.Option(help="Data folder in the official layout; tiny makes its own.")
    ] = None,
    llm: Annotated[str | None, typer.Option(help="Llama-architecture model, hub id or folder.")] = None,
    clip: Annotated[str | None, typer.Option(help="open_clip ViT, NAME[:WEIGHTS] or local-dir:FOLDER.")] = None,
    weights: Annotated[str, typer.Option(help="pretrained, or random (cost only, no accuracy).")] = "pretrained",
    limit: Annotated[int | None, typer.Option(min=1, help="Records kept a split.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs instead of the recipe's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps instead of epochs.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value of a recipe or METHOD.key=value.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, or auto (bfloat16 on a GPU).")] = "auto",
    results: Results = Path("results"),
    skip_bad_images: Annotated[bool, typer.Option(help="Leave out unreadable images and count them.")] = False,
    full: Annotated[bool, typer.Option(help="The data folder must be the full benchmark.")] = False,
    force: Annotated[bool, typer.Option(help="Run again what is recorded.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what is missing.")] = False,
) -> None:
    """Train and score methods, write one record a run, and print the table."""
    from harness.commands.run import RunOptions, run_command

    options = RunOptions(
        methods=_names(methods),
        ablations=_ablations(ablation),
        model=model,
        task=task,
        seeds=_integers("--seeds", seeds),
        data_root=data_root,
        llm=llm,
        clip=clip,
        weights=weights,
        limit=limit,
        epochs=epochs,
        steps=steps,
        settings=_settings(set_ or []),
        device=device,
        dtype=dtype,
        results=results,
        skip_bad_images=skip_bad_images,
        full=full,
        force=force,
        dry_run=dry_run,
    )
    raise typer.Exit(run_command(options, Console()))


@app.command(epilog=_epilog("python -m harness table --table 1 --format latex"))
def table(
    number: Annotated[int, typer.Option("--table", help="The paper's table: 1, 2, 3 or 4.")] = 1,
    model: Annotated[str | None, typer.Option(help="Rows of one model only.")] = None,
    format: Annotated[TableFormat, typer.Option(help="Output format.")] = TableFormat.markdown,
    results: Results = Path("results"),
) -> None:
    """The leaderboard from the records, each measured value beside the paper's."""
    from harness.report.tables import table_text

    print(table_text(results, number, model, format.value))


@app.command(epilog=_epilog("python -m harness compare dehvf memvp"))
def compare(
    first: Annotated[str, typer.Argument(help="A method, METHOD-ABLATION, or `blind`.")],
    second: Annotated[str, typer.Argument(help="What it is compared with.")],
    model: Annotated[str, typer.Option(help="Model of the records.")] = "tiny",
    task: Annotated[str, typer.Option(help="Task of the records.")] = "scienceqa",
    format: Annotated[TextFormat, typer.Option(help="Output format.")] = TextFormat.markdown,
    results: Results = Path("results"),
) -> None:
    """Whether one method beats another: paired tests over their seeds and over their answers."""
    from harness.report.compare import compare_text

    print(compare_text(results, first, second, model, task, format.value))


@app.command(epilog=_epilog("python -m harness methods"))
def methods(format: Annotated[TextFormat, typer.Option(help="Output format.")] = TextFormat.markdown) -> None:
    """What is registered, with its source."""
    from harness.commands.methods import methods_text

    print(methods_text(format.value))


@app.command(epilog=_epilog("python -m harness params --model 13b --format json"))
def params(
    methods: Annotated[str, typer.Option(help="Methods, comma-separated; default all.")] = "all",
    model: Annotated[str, typer.Option(help="Preset, or a folder or hub id of a Llama model.")] = "7b",
    format: Annotated[TextFormat, typer.Option(help="Output format.")] = TextFormat.markdown,
) -> None:
    """Trainable parameters by module, counted on the meta device, beside the paper's."""
    from harness.cost.params import params_text

    print(params_text(_names(methods), model, format.value))


@app.command(epilog=_epilog("python -m harness flops --model 7b --text-length 128"))
def flops(
    methods: Annotated[str, typer.Option(help="Methods, comma-separated; default all.")] = "all",
    model: Annotated[str, typer.Option(help="Preset, or a folder or hub id of a Llama model.")] = "7b",
    text_length: Annotated[int, typer.Option(min=1, help="Text tokens a sample.")] = 256,
    visual_tokens: Annotated[int | None, typer.Option(min=1, help="Patches of an image; default: the tower's.")] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded by inference.")] = 1,
    train_batch: Annotated[int, typer.Option(min=1, help="Samples of a training step.")] = 4,
    eval_batch: Annotated[int, typer.Option(min=1, help="Samples of an inference batch.")] = 32,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value of the methods' configs.")] = None,
    figure2: Annotated[bool, typer.Option("--figure2", help="The paper's Figure 2 instead.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw Figure 2 into this .png, .svg or .pdf.")] = None,
    format: Annotated[TextFormat, typer.Option(help="Output format.")] = TextFormat.markdown,
) -> None:
    """Floating-point operations by formula, for training and inference; or the paper's Figure 2."""
    from harness.cost.commands import figure_command_text
    from harness.cost.flops import Workload
    from harness.cost.flops_table import flops_text

    if figure2 or plot is not None:
        print(figure_command_text(format.value, plot), end="")
        return
    work = Workload(text_length=text_length, new_tokens=new_tokens, train_batch=train_batch, eval_batch=eval_batch)
    settings = _settings(set_ or [])
    options = {"work": work, "visual_tokens": visual_tokens, "settings": settings}
    print(flops_text(_names(methods), model, format.value, **options), end="")


@app.command(epilog=_epilog("python -m harness speed --model slice --steps 20"))
def speed(
    methods: Annotated[str, typer.Option(help="Methods, comma-separated; default all.")] = "all",
    model: Annotated[str, typer.Option(help="Backbone preset: tiny, bench, slice, 7b, 13b.")] = "tiny",
    layers: Annotated[int | None, typer.Option(min=1, help="Decoder layers in place of the preset's.")] = None,
    weights: Annotated[str, typer.Option(help="random or pretrained; the time is the same.")] = "random",
    train_batch: Annotated[int, typer.Option(min=1, help="Samples of a training step.")] = 4,
    eval_batch: Annotated[int, typer.Option(min=1, help="Samples of an inference batch.")] = 32,
    text_length: Annotated[int, typer.Option(min=1, help="Text tokens a sample.")] = 256,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded by inference.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Batches timed of each method and phase.")] = 20,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, or auto (bfloat16 on a GPU).")] = "auto",
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile by layers; training on a GPU as one graph.")
    ] = False,
    profile: Annotated[Path | None, typer.Option(help="Also write where the time goes, by operator (.json).")] = None,
    format: Annotated[TextFormat, typer.Option(help="Output format.")] = TextFormat.markdown,
    results: Results = Path("results"),
) -> None:
    """Seconds a batch of every method, in turns, beside the plain readings and the bare backbone; writes records."""
    from harness.cost.commands import SpeedOptions, speed_text
    from harness.cost.flops import Workload

    options = SpeedOptions(
        methods=_names(methods),
        model=model,
        layers=layers,
        weights=weights,
        work=Workload(text_length=text_length, new_tokens=new_tokens, train_batch=train_batch, eval_batch=eval_batch),
        steps=steps,
        device=device,
        dtype=dtype,
        compiled=compile_,
        profile=profile,
        format=format.value,
        results=results,
    )
    print(speed_text(options, Console(stderr=True)), end="")


@app.command(epilog=_epilog("python -m harness readme --results results"))
def readme(results: Results = Path("results")) -> None:
    """Write RESULTS/README.md and RESULTS/schema.json from the records."""
    from harness.records import export_schema
    from harness.report.readme import write_readme

    export_schema(results / "schema.json")
    print(write_readme(results))


@app.command(epilog=_epilog("python -m harness pretrain --out my-tiny"))
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the weights; files in it are replaced.")] = Path("runs/tiny"),
    seed: Annotated[int, typer.Option(help="Seed of data and weights.")] = 0,
) -> None:
    """Make the tiny backbone from scratch, as the shipped one was made."""
    from harness.pretrain import pretrain as make

    print(json.dumps(make(out, seed=seed), indent=2))


@app.command(epilog=_epilog("python -m harness predict --adapter results/adapters/... --image FILE --question '...'"))
def predict(
    adapter: Annotated[Path, typer.Option(help="Folder of a saved adapter.")],
    question: Annotated[str, typer.Option(help="The question; without one the image is captioned.")] = "",
    image: Annotated[Path | None, typer.Option(help="Image file.")] = None,
    choices: Annotated[
        list[str] | None, typer.Option(help="Options, comma-separated; or once for each option, commas and all.")
    ] = None,
    hint: Annotated[str, typer.Option(help="Context of the question.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto.")] = "auto",
    format: Annotated[TextFormat, typer.Option(help="Output format.")] = TextFormat.markdown,
) -> None:
    """Answer one question, or caption one image, with a saved adapter."""
    from harness.commands.predict import predict_text

    options = _names(choices[0]) if choices and len(choices) == 1 else tuple(choices or ())
    print(predict_text(adapter, question, image, options, hint, device, format.value))


@score_app.command("scienceqa", epilog=_epilog("python -m harness score scienceqa --problems problems.json ..."))
def score_scienceqa(
    problems: Annotated[Path, typer.Option(help="problems.json")],
    splits: Annotated[Path, typer.Option(help="pid_splits.json")],
    predictions: Annotated[Path, typer.Option(help="predictions.jsonl, {qid: index}, or a published results file")],
    split: Annotated[str, typer.Option(help="Split to score.")] = "test",
    format: Annotated[TextFormat, typer.Option(help="Output format.")] = TextFormat.markdown,
) -> None:
    """Accuracy in the nine columns, with standard errors."""
    from harness.commands.score import scores_text
    from harness.evaluation.score_scienceqa import score_scienceqa_files

    print(scores_text(score_scienceqa_files(problems, splits, predictions, split), format.value))


@score_app.command("coco", epilog=_epilog("python -m harness score coco --references dataset_coco.json ..."))
def score_coco(
    references: Annotated[
        Path, typer.Option(help="Karpathy's json, COCO's annotation json, {image id: [captions]}, or predictions.jsonl")
    ],
    predictions: Annotated[
        Path, typer.Option(help="COCO results format: [{image_id, caption}, ...], or predictions.jsonl")
    ],
    split: Annotated[str, typer.Option(help="Split to score, of Karpathy's json.")] = "test",
    only_predicted: Annotated[
        bool, typer.Option("--only-predicted", help="Leave out images without a caption, as for a part of COCO's json.")
    ] = False,
    format: Annotated[TextFormat, typer.Option(help="Output format.")] = TextFormat.markdown,
) -> None:
    """BLEU, METEOR, ROUGE-L, CIDEr and SPICE x 100, with standard errors."""
    from harness.commands.score import scores_text
    from harness.evaluation.score_coco import score_coco_files

    scores = score_coco_files(references, predictions, split, only_predicted=only_predicted)
    print(scores_text(scores, format.value))


@data_app.command("fetch", epilog=_epilog("python -m harness data fetch --data-root scienceqa-hf"))
def data_fetch(data_root: Annotated[Path, typer.Option(help="New folder, for the official layout.")]) -> None:
    """Download ScienceQA in its Hugging Face form (needs `datasets`) and write it in the official layout."""
    from harness.data.huggingface import fetch

    fetch(data_root)


@data_app.command("check", epilog=_epilog("python -m harness data check scienceqa --data-root DIR"))
def data_check(
    task: Annotated[str, typer.Argument(help="scienceqa or coco")],
    data_root: Annotated[Path, typer.Option(help="Data folder.")],
    full: Annotated[bool, typer.Option(help="It must be the full benchmark.")] = False,
    format: Annotated[TextFormat, typer.Option(help="Output format.")] = TextFormat.markdown,
) -> None:
    """Counts, images, duplicates and hashes of a data folder."""
    from harness.commands.data import check_command

    raise typer.Exit(check_command(task, data_root, full, format.value, Console()))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _ablations(text: str) -> tuple[str, ...]:
    names = _names(text)
    if text and not names:
        raise UserError(f"--ablation {text}: give names separated by commas, or all")
    return names


def _integers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in _names(text)))
    except ValueError as error:
        raise UserError(f"{option} {text}: give whole numbers separated by commas, e.g. 0,1,2") from error


def _settings(pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: give key=value")
        try:
            settings[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            settings[key.strip()] = value
    return settings


def main() -> None:
    """Run the command line; user errors are one line and exit status 2."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
