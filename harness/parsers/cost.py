"""The subcommands about methods and their cost."""

from pathlib import Path
from typing import Annotated

import typer

from harness import terminal, typed
from harness.errors import UserError
from harness.options import (
    CostModel,
    Device,
    Dtype,
    EvalBatch,
    Methods,
    NewTokens,
    Results,
    TextFormat,
    TextLength,
    TextOutput,
    TrainBatch,
)
from harness.parsers.shown import epilog, print_markdown
from harness.stopping import exit_status
from harness.streams import print_result, say_on_stderr

app = typer.Typer()


@app.command(rich_help_panel="Methods and their cost", epilog=epilog("python -m harness methods"))
def methods(format: TextOutput = TextFormat.markdown) -> None:
    """List the registered methods with their papers."""
    from harness.commands.methods import methods_text

    print_result(methods_text(format.value, terminal.terminal_width()))


@app.command(
    rich_help_panel="Methods and their cost", epilog=epilog("python -m harness params --model 13b --format json")
)
def params(
    methods: Methods = "all",
    model: CostModel = "7b",
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Count trainable parameters by module without loading weights, next to the paper's numbers."""
    from harness.cost.params import params_text

    print_result(params_text(typed.names("--methods", methods), model, format.value, width=terminal.terminal_width()))


@app.command(
    rich_help_panel="Methods and their cost", epilog=epilog("python -m harness flops --model 7b --text-length 128")
)
def flops(
    context: typer.Context,
    methods: Methods = "all",
    model: CostModel = "7b",
    text_length: TextLength = 256,
    visual_tokens: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Patches per image; by default those of the vision tower.")
    ] = None,
    new_tokens: NewTokens = 1,
    train_batch: TrainBatch = 4,
    eval_batch: EvalBatch = 32,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the methods' configs. Repeatable."),
    ] = None,
    figure2: Annotated[
        bool,
        typer.Option(
            "--figure2", help="Print the numbers of the paper's Figure 2 instead. They have sizes of their own."
        ),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="As --figure2, and also draw the figure into this .png, .svg or .pdf file.")
    ] = None,
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Compute FLOPs of training and inference by formula, or the paper's Figure 2."""
    from harness.cost.commands import figure_command_text
    from harness.cost.flops import Workload
    from harness.cost.flops_table import flops_text

    if figure2 or plot is not None:
        asked = "--figure2" if figure2 else "--plot"
        for option in typed.given_options(context):
            if option not in ("--figure2", "--plot", "--format"):
                raise UserError(f"{option}: Figure 2 has sizes of its own; leave out this option or {asked}")
        print_markdown(figure_command_text(format.value, plot), format.value, end="")
        return
    work = Workload(text_length=text_length, new_tokens=new_tokens, train_batch=train_batch, eval_batch=eval_batch)
    settings = typed.settings(set_ or [])
    text = flops_text(
        typed.names("--methods", methods),
        model,
        format.value,
        width=terminal.terminal_width(),
        work=work,
        visual_tokens=visual_tokens,
        settings=settings,
    )
    print_result(text, end="")


@app.command(
    rich_help_panel="Methods and their cost", epilog=epilog("python -m harness speed --model slice --steps 20")
)
def speed(
    methods: Methods = "all",
    model: Annotated[str, typer.Option(help="Backbone preset: tiny, bench, slice, 7b, 13b.")] = "tiny",
    layers: Annotated[
        int | None, typer.Option(min=1, max=1_000, help="Number of decoder layers in place of the preset's.")
    ] = None,
    weights: Annotated[str, typer.Option(help="random or pretrained. The times are the same.")] = "random",
    train_batch: TrainBatch = 4,
    eval_batch: EvalBatch = 32,
    text_length: TextLength = 256,
    new_tokens: NewTokens = 1,
    steps: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Rounds to time: batches per method and phase.")
    ] = 20,
    processes: Annotated[
        int, typer.Option(min=1, max=1_000, help="Divide the rounds among this number of processes, one after another.")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=typed.MOST_THREADS,
            help="Compute threads on a CPU; torch chooses by default. With 1, ratios are of CPU time.",
        ),
    ] = None,
    goal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PHASE:METHOD/METHOD=LIMIT",
            help="Say whether a ratio of times keeps a limit. METHOD-plain is a plain version, `frozen` the bare "
            "towers. Repeatable.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile each decoder layer; on a GPU, replay training steps as graphs, as `run` does. A run does not "
            "compile its evaluation.",
        ),
    ] = False,
    profile: Annotated[Path | None, typer.Option(help="Also write the time per operator into this .json file.")] = None,
    format: TextOutput = TextFormat.markdown,
    results: Results = Path("results"),
) -> None:
    """Time every method, plain versions of the memory methods and the bare backbone in turn, and write records."""
    from harness.cost.commands import SpeedOptions, speed_text
    from harness.cost.flops import Workload

    options = SpeedOptions(
        methods=typed.names("--methods", methods),
        model=model,
        layers=layers,
        weights=weights,
        work=Workload(text_length=text_length, new_tokens=new_tokens, train_batch=train_batch, eval_batch=eval_batch),
        steps=steps,
        processes=processes,
        threads=threads,
        goals=tuple(goal or ()),
        device=device,
        dtype=dtype,
        compiled=compile_,
        profile=profile,
        format=format.value,
        results=results,
    )
    try:
        text = speed_text(options)
    except KeyboardInterrupt as stop:  # typer knows no signal but SIGINT
        say_on_stderr(f"interrupted by {str(stop) or 'SIGINT'}")
        raise typer.Exit(exit_status(stop)) from stop
    print_markdown(text, format.value, end="")
