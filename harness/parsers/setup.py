"""The subcommands that prepare runs: the tiny backbone, the machine, and data."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.options import TextFormat, TextOutput
from harness.parsers.shown import epilog
from harness.streams import print_result

app = typer.Typer()
data_app = typer.Typer(help="Download a data folder, or check one before training on it.", no_args_is_help=True)


@app.command(rich_help_panel="Set up", epilog=epilog("python -m harness pretrain --out my-tiny"))
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the weights. Files in it are replaced.")] = Path("runs/tiny"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the data and of the initial weights.")] = 0,
) -> None:
    """Train the tiny backbone from scratch, as the shipped one was trained."""
    from harness.pretrain import pretrain as make

    print_result(json.dumps(make(out, seed=seed), indent=2))


@app.command(rich_help_panel="Set up", epilog=epilog("python -m harness doctor --model 7b"))
def doctor(
    model: Annotated[str, typer.Option(help="Backbone preset of the run.")] = "7b",
    llm: Annotated[str | None, typer.Option(help="Language model in place of the preset's.")] = None,
    clip: Annotated[str | None, typer.Option(help="Vision tower in place of the preset's.")] = None,
    task: Annotated[str, typer.Option(help="Task of the run: scienceqa or coco.")] = "scienceqa",
    data_root: Annotated[Path | None, typer.Option(help="Data folder. Without it, where `run` looks.")] = None,
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Say what a run needs and what of it is here, with the command that mends each fault."""
    from harness.commands.doctor import doctor_command

    raise typer.Exit(doctor_command(model, llm, clip, task, data_root, format.value, Console()))


@data_app.command("fetch", epilog=epilog("python -m harness data fetch scienceqa --data-root DIR"))
def data_fetch(
    task: Annotated[str, typer.Argument(help="Task whose data to download: scienceqa or coco.")] = "scienceqa",
    data_root: Annotated[
        Path | None, typer.Option(help="New folder to write to. By default the cache, where `run` finds it.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="coco: folder with train2014/ and val2014/ to link, instead of a download.")
    ] = None,
) -> None:
    """Download the data of a task and write it in the official layout."""
    from harness.commands.data import fetch_command

    fetch_command(task, data_root, images)


@data_app.command("check", epilog=epilog("python -m harness data check scienceqa --data-root DIR"))
def data_check(
    task: Annotated[str, typer.Argument(help="Task whose data the folder holds: scienceqa or coco.")],
    data_root: Annotated[Path, typer.Option(help="Data folder in the official layout.")],
    full: Annotated[bool, typer.Option("--full", help="Require that the folder holds the full benchmark.")] = False,
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Count the samples of a data folder, decode its images, find duplicates and print hashes."""
    from harness.commands.data import check_command

    raise typer.Exit(check_command(task, data_root, full, format.value, Console()))
