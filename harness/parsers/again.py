"""The subcommands that go on from a run: make it again, or ask its adapter."""

from pathlib import Path
from typing import Annotated

import typer

from harness import typed
from harness.options import Device, TextFormat, TextOutput, not_nan
from harness.parsers.shown import epilog
from harness.streams import print_result

app = typer.Typer()


@app.command(
    rich_help_panel="Make runs",
    epilog=epilog("python -m harness verify results/records/scienceqa/tiny/memvp/seed0-....json"),
)
def verify(
    record: Annotated[Path, typer.Argument(help="File of a record; its predictions are looked for beside it.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Data folder of the recorded run. Without it, where `run` looks.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Preset of the recorded run, where --llm or --clip replaced a part of it.")
    ] = None,
    llm: Annotated[str | None, typer.Option(help="Value of --llm in the recorded run, where it had one.")] = None,
    clip: Annotated[str | None, typer.Option(help="Value of --clip in the recorded run, where it had one.")] = None,
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=typed.MOST_THREADS, help="Compute threads; by default those of the record.")
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            callback=not_nan,
            help="Points that each score may differ by. By default two of its standard errors.",
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="Results folder for the second run, which goes on after an interruption. By default it is not kept."
        ),
    ] = None,
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Make a recorded run again, and say whether its answers and scores are identical, within a limit, or different."""
    from harness.commands.verify import VerifyOptions, verify_command
    from harness.run.progress import RunConsole

    options = VerifyOptions(record, data_root, model, llm, clip, device, threads, within, into, format.value)
    raise typer.Exit(verify_command(options, RunConsole(stderr=True)))


@app.command(
    rich_help_panel="Make runs",
    epilog=epilog("python -m harness predict --adapter results/adapters/... --image FILE --question '...'"),
)
def predict(
    adapter: Annotated[Path, typer.Option(help="Folder of a saved adapter.")],
    question: Annotated[str, typer.Option(help="The question. Without one, the image is captioned.")] = "",
    image: Annotated[Path | None, typer.Option(help="Image file.")] = None,
    choices: Annotated[
        list[str] | None,
        typer.Option(help="The options, separated by commas. Give it once per option if options contain commas."),
    ] = None,
    hint: Annotated[str, typer.Option(help="Context of the question.")] = "",
    llm: Annotated[
        str | None,
        typer.Option(
            help="Where its language model is on this machine: folder or hub id. By default as it was trained."
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            help="Where its vision tower is: NAME[:WEIGHTS] or local-dir:FOLDER. By default as it was trained."
        ),
    ] = None,
    device: Device = "auto",
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Answer one question, or caption one image, with a saved adapter."""
    from harness.commands.predict import loaded_adapter, predict_text

    options = typed.choices(choices or [])
    loaded = loaded_adapter(adapter, device, llm, clip)
    print_result(predict_text(loaded, question, image, options, hint, format.value))
