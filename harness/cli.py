"""The command line: it parses the options and calls the rest of the harness.

Each command imports what it needs in its own body, so that `--help` stays fast.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness import typed
from harness.errors import UserError
from harness.escape import visible, visible_lines
from harness.options import (
    RECORDS,
    CostModel,
    Device,
    Dtype,
    EvalBatch,
    Methods,
    NewTokens,
    ProtocolName,
    ProtocolOption,
    Results,
    ShownProtocol,
    TableFormat,
    TextFormat,
    TextLength,
    TextOutput,
    TrainBatch,
    not_nan,
)
from harness.streams import prepare_streams, print_error, print_result
from harness.terminal import document, terminal_width

LOOK = "Look"
TIMINGS = "Table 2 only"
EXIT_CODES = "Exit status: 0 done, 1 a run failed, 2 wrong usage or something missing, 128 + signal interrupted."

PACKAGE = "peft-vl-bench"

app = typer.Typer(
    name=PACKAGE,
    help="Reproducibility benchmark for parameter-efficient vision-language fine-tuning.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
score_app = typer.Typer(help="Score saved predictions.", no_args_is_help=True)
data_app = typer.Typer(help="Download a data folder, or check one before training on it.", no_args_is_help=True)
results_app = typer.Typer(help="Use folders of results.", no_args_is_help=True)
records_app = typer.Typer(help="Use the records of runs.", no_args_is_help=True)
app.add_typer(score_app, name="score", rich_help_panel="Read results")
app.add_typer(data_app, name="data", rich_help_panel="Set up")
app.add_typer(records_app, name="records", rich_help_panel="Read results")
app.add_typer(results_app, name="results", rich_help_panel="Read results")


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print_result(version(PACKAGE))
        except PackageNotFoundError as error:
            raise UserError(f"--version: {PACKAGE} is not installed; run `pip install -e .` in its folder") from error
        raise typer.Exit


@app.callback()
def options_of_every_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Parse the options before the subcommand. Each option does its work in its own callback."""


def _print_markdown(text: str, format: str, end: str = "\n") -> None:
    """Print the result of a command; in a terminal, Markdown is laid out for its width."""
    width = terminal_width() if format == "markdown" else None
    if width is None:
        print_result(text, end=end)
    else:
        print_result(document(text, width), end="")


def _epilog(example: str) -> str:
    return f"Example: `{example}`\n\n{EXIT_CODES}"


def _use_config(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None and not context.resilient_parsing:
        from harness.commands.config_file import use_config

        use_config(context, path)
    return path


@app.command(
    rich_help_panel="Make runs",
    epilog=_epilog("python -m harness run --methods dehvf,memvp --model tiny --seeds 0,1,2"),
)
def run(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Settings files",
            metavar="FILE.toml",
            is_eager=True,
            callback=_use_config,
            help="Take options from this file, where they have the same names, and the pairs of --set from its table "
            r"\[set]. The command line wins.",
        ),
    ] = None,
    save_config: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Settings files",
            metavar="FILE.toml",
            help="Write the options of this command into a file for --config.",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Runs",
            help="Names of methods, separated by commas, or `all`. `blind` and `oracle` are reference rows. "
            "By default the two memory methods.",
        ),
    ] = None,
    ablation: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Runs",
            help="Run these ablations of the methods instead: names separated by commas, or `all`.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(rich_help_panel="Runs", help="Backbone preset: tiny, smol, 7b, 13b, or bench to measure cost."),
    ] = "tiny",
    task: Annotated[
        str, typer.Option(rich_help_panel="Runs", help="Task to train on and score: scienceqa or coco.")
    ] = "scienceqa",
    seeds: Annotated[
        str, typer.Option(rich_help_panel="Runs", help="Seeds, separated by commas. Each method runs once per seed.")
    ] = "0",
    data_root: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Data and weights",
            help="Data folder in the official layout. Without it: the task's folder in $PEFT_VL_BENCH_DATA, the cache, "
            "or a download. The tiny model makes its own data.",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            rich_help_panel="Data and weights",
            help="Download nothing; say what is missing and how to get it.",
        ),
    ] = False,
    llm: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Data and weights",
            help="Language model in place of the preset's: hub id or folder of a Llama model.",
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Data and weights",
            help="Vision tower in place of the preset's: NAME[:WEIGHTS] or local-dir:FOLDER.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            rich_help_panel="Data and weights",
            help="pretrained, or random to measure cost. No accuracy is reported for random weights.",
        ),
    ] = "pretrained",
    quantize: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Data and weights",
            metavar="8bit|4bit",
            help="Quantise the frozen language model by bitsandbytes, an extra; what is trained stays in float32. The "
            "quantised model is a model of its own in tables, such as `7b-4bit`.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            rich_help_panel="Data and weights", min=1, max=1_000_000_000, help="Number of samples to keep per split."
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(rich_help_panel="Training", help="Length of training in epochs, in place of the recipe's."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            rich_help_panel="Training",
            min=1,
            max=1_000_000_000,
            help="Length of training in optimiser steps, in place of epochs.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            rich_help_panel="Training",
            metavar="KEY=VALUE",
            help="Change a field of the recipe or of the methods; METHOD.KEY=VALUE changes one method. Repeatable.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    results: Results = Path("results"),
    skip_bad_images: Annotated[
        bool,
        typer.Option(
            "--skip-bad-images",
            rich_help_panel="Data and weights",
            help="Leave out samples whose image cannot be read, and count them.",
        ),
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full", rich_help_panel="Data and weights", help="Require that the data folder holds the full benchmark."
        ),
    ] = False,
    shard: Annotated[
        str,
        typer.Option(
            rich_help_panel="Runs",
            metavar="I/N",
            help="Make only the I-th of N parts of the runs, for the I-th job of an array of N. `results merge` joins "
            "their folders.",
        ),
    ] = "1/1",
    force: Annotated[
        bool, typer.Option("--force", rich_help_panel="Runs", help="Repeat runs that are already recorded.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            rich_help_panel="Runs",
            help="Train nothing; print what each run would take and what is missing.",
        ),
    ] = False,
    format: Annotated[
        TextFormat, typer.Option(rich_help_panel="Runs", help="Output format of --dry-run.")
    ] = TextFormat.markdown,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            rich_help_panel="Machine",
            help="Use torch's deterministic algorithms only. A machine then repeats a run bit for bit, more slowly.",
        ),
    ] = False,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(
            rich_help_panel="Machine",
            min=0,
            max=1e6,
            callback=not_nan,
            help="Minutes between two checkpoints of training.",
        ),
    ] = 10.0,
    micro_batch: Annotated[
        str,
        typer.Option(
            rich_help_panel="Machine",
            metavar="auto|N",
            help="Samples per forward pass in training. It changes the memory, not the loss. auto takes the whole "
            "batch, and half of it each time that memory runs out.",
        ),
    ] = "auto",
    workers: Annotated[
        str,
        typer.Option(
            rich_help_panel="Machine",
            metavar="auto|N",
            help="Processes that prepare batches ahead of the model. They change no result. auto starts none on a CPU, "
            "and up to 8 for a GPU.",
        ),
    ] = "auto",
    log_seconds: Annotated[
        float,
        typer.Option(
            rich_help_panel="Progress",
            min=0,
            max=1e6,
            callback=not_nan,
            help="Longest time between two lines of progress where the output is no terminal; 0 prints every step.",
        ),
    ] = 30.0,
    eval_every: Annotated[
        int,
        typer.Option(
            rich_help_panel="Progress",
            min=0,
            max=1_000_000_000,
            help="Optimiser steps between two validations during training, on 256 problems of the validation split; "
            "0 never validates. The result of the run is the same.",
        ),
    ] = 0,
    tracker: Annotated[
        str,
        typer.Option(
            rich_help_panel="Progress", help="Also send every step to tensorboard, wandb or trackio. Each is an extra."
        ),
    ] = "",
    protocol: ProtocolOption = ProtocolName.uniform,
    jobs: Annotated[
        int | None,
        typer.Option(
            rich_help_panel="Machine",
            min=1,
            max=1024,
            help="Runs side by side on a CPU. By default one for each core, or for each --threads cores.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            rich_help_panel="Machine",
            min=1,
            max=1024,
            help="Compute threads per run. By default 1 for the tiny model, else all cores.",
        ),
    ] = None,
) -> None:
    """Train and score methods, write one record per run, and print the table."""
    from harness.commands import config_file
    from harness.commands.run import RunOptions, run_command
    from harness.run.progress import RunConsole

    settings = config_file.settings_of(context, typed.settings(set_ or []))
    if save_config is not None:
        config_file.save_config(context, settings, save_config)
    options = RunOptions(
        methods=() if methods is None else typed.names("--methods", methods),
        ablations=() if ablation is None else typed.names("--ablation", ablation),
        model=model,
        task=task,
        seeds=typed.integers("--seeds", seeds),
        data_root=data_root,
        offline=offline,
        llm=llm,
        clip=clip,
        weights=weights,
        quantize=quantize,
        limit=limit,
        epochs=epochs,
        steps=steps,
        settings=settings,
        device=device,
        dtype=dtype,
        results=results,
        skip_bad_images=skip_bad_images,
        full=full,
        shard=typed.part("--shard", shard),
        force=force,
        dry_run=dry_run,
        format=format.value,
        deterministic=deterministic,
        checkpoint_minutes=checkpoint_minutes,
        micro_batch=typed.count_or_auto("--micro-batch", micro_batch),
        workers=typed.count_or_auto("--workers", workers, least=0),
        log_seconds=log_seconds,
        eval_every=eval_every,
        tracker=tracker,
        protocol=protocol.value,
        jobs=jobs,
        threads=threads,
    )
    raise typer.Exit(run_command(options, RunConsole()))


@app.command(rich_help_panel="Read results", epilog=_epilog("python -m harness table --table 1 --format latex"))
def table(
    number: Annotated[int, typer.Option("--table", max=1_000, help="Number of the paper's table: 1, 2, 3 or 4.")] = 1,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="Show the paper's numbers cell by cell, and whether the measured ones agree with them."
        ),
    ] = False,
    columns: Annotated[
        str | None, typer.Option(rich_help_panel=LOOK, help="Show these columns of values only, separated by commas.")
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", rich_help_panel=LOOK, help="Show all columns, also where the terminal is narrow.")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", rich_help_panel=LOOK, help="In a terminal, also show the rows of the paper that have no record."
        ),
    ] = False,
    format: Annotated[
        TableFormat | None,
        typer.Option(
            rich_help_panel=LOOK,
            help="Output format. By default what fits a terminal, and markdown in a file or a pipe.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(rich_help_panel=RECORDS, help="Show the rows of this model only.")
    ] = None,
    protocol: ShownProtocol = ProtocolName.uniform,
    results: Results = Path("results"),
    device: Annotated[
        str | None,
        typer.Option(rich_help_panel=TIMINGS, help="Timings on this device: cpu, gpu, or a part of its name."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(rich_help_panel=TIMINGS, help="Timings in this dtype: float32 or bfloat16.")
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compiled/--not-compiled",
            rich_help_panel=TIMINGS,
            help="Timings of compiled decoder layers, or of others.",
        ),
    ] = None,
    text_length: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, rich_help_panel=TIMINGS, help="Timings at this number of text tokens."),
    ] = None,
) -> None:
    """Print one of the paper's tables from the records, and mark which values are not distinguishable from the best."""
    from harness.report.timed import TimedFilter

    chosen = () if columns is None else typed.names("--columns", columns)
    timed = TimedFilter(device, dtype, compiled, text_length)
    if paper:
        from harness.report.against_paper import against_paper_text

        if given := [*(["--columns"] if chosen else []), *timed.given()]:
            raise UserError(f"{given[0]}: --paper shows all values; leave one of them out")
        as_text = (format or TableFormat.markdown).value
        _print_markdown(against_paper_text(results, number, model, as_text, protocol.value), as_text)
        return
    from harness.commands.table import TableOptions, table_command_text

    options = TableOptions(
        results=results,
        number=number,
        model=model,
        protocol=protocol.value,
        format=None if format is None else format.value,
        columns=chosen,
        wide=wide,
        everything=everything,
        timed=timed,
        width=terminal_width(),
    )
    print_result(table_command_text(options))


@app.command(rich_help_panel="Read results", epilog=_epilog("python -m harness compare dehvf memvp"))
def compare(
    first: Annotated[str, typer.Argument(help="A method, METHOD-ABLATION, or `blind`.")],
    second: Annotated[str, typer.Argument(help="The one to compare it with.")],
    model: Annotated[str, typer.Option(help="Model of the records.")] = "tiny",
    task: Annotated[str, typer.Option(help="Task of the records.")] = "scienceqa",
    protocol: ShownProtocol = ProtocolName.uniform,
    format: TextOutput = TextFormat.markdown,
    results: Results = Path("results"),
) -> None:
    """Say whether one method is better than another, with intervals: a test over their seeds and their answers."""
    from harness.report.compare import compare_text

    width = terminal_width()
    print_result(compare_text(results, first, second, model, task, format.value, protocol.value, width=width))


@app.command(
    rich_help_panel="Make runs",
    epilog=_epilog("python -m harness verify results/records/scienceqa/tiny/memvp/seed0-....json"),
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
        int | None, typer.Option(min=1, max=1024, help="Compute threads; by default those of the record.")
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


@app.command(rich_help_panel="Read results", epilog=_epilog("python -m harness audit"))
def audit(format: TextOutput = TextFormat.markdown, results: Results = Path("results")) -> None:
    """Check by arithmetic whether accuracies can be true: those that the paper prints, and those of the records."""
    from harness.report.audit import audit_text

    _print_markdown(audit_text(results, format.value), format.value)


@app.command(rich_help_panel="Methods and their cost", epilog=_epilog("python -m harness methods"))
def methods(format: TextOutput = TextFormat.markdown) -> None:
    """List the registered methods with their papers."""
    from harness.commands.methods import methods_text

    print_result(methods_text(format.value, terminal_width()))


@app.command(
    rich_help_panel="Methods and their cost", epilog=_epilog("python -m harness params --model 13b --format json")
)
def params(
    methods: Methods = "all",
    model: CostModel = "7b",
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Count trainable parameters by module without loading weights, next to the paper's numbers."""
    from harness.cost.params import params_text

    print_result(params_text(typed.names("--methods", methods), model, format.value, width=terminal_width()))


@app.command(
    rich_help_panel="Methods and their cost", epilog=_epilog("python -m harness flops --model 7b --text-length 128")
)
def flops(
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
        bool, typer.Option("--figure2", help="Print the numbers of the paper's Figure 2 instead.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw Figure 2 into this .png, .svg or .pdf file.")] = None,
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Compute FLOPs of training and inference by formula, or the paper's Figure 2."""
    from harness.cost.commands import figure_command_text
    from harness.cost.flops import Workload
    from harness.cost.flops_table import flops_text

    if figure2 or plot is not None:
        _print_markdown(figure_command_text(format.value, plot), format.value, end="")
        return
    work = Workload(text_length=text_length, new_tokens=new_tokens, train_batch=train_batch, eval_batch=eval_batch)
    settings = typed.settings(set_ or [])
    options = {"work": work, "visual_tokens": visual_tokens, "settings": settings, "width": terminal_width()}
    print_result(flops_text(typed.names("--methods", methods), model, format.value, **options), end="")


@app.command(
    rich_help_panel="Methods and their cost", epilog=_epilog("python -m harness speed --model slice --steps 20")
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
            min=1, max=1024, help="Compute threads on a CPU; torch chooses by default. With 1, ratios are of CPU time."
        ),
    ] = None,
    goal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PHASE:METHOD/METHOD=LIMIT",
            help="Say whether a ratio of times keeps a limit. METHOD-plain is a plain version, `frozen` the bare "
            "backbone. Repeatable.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile each decoder layer; on a GPU, replay training steps as graphs, as `run` does."
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
    _print_markdown(speed_text(options), format.value, end="")


@app.command(rich_help_panel="Read results", epilog=_epilog("python -m harness readme --results results"))
def readme(results: Results = Path("results")) -> None:
    """Write README.md and schema.json into the results folder, from its records."""
    from harness.records import export_schema
    from harness.report.readme import write_readme

    export_schema(results / "schema.json")
    print_result(visible(str(write_readme(results))))


@app.command(rich_help_panel="Read results", epilog=_epilog("python -m harness report --results results --out site"))
def report(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="Folder of the page. Its index.html is replaced.")] = Path("site"),
) -> None:
    """Write one page with all leaderboards, figures, answers and records. It needs no server and no network."""
    from harness.commands.report import report_text

    print_result(visible_lines(report_text(results, out)))


@app.command(rich_help_panel="Read results", epilog=_epilog("python -m harness plot figure2 --out figure2.pdf"))
def plot(
    name: Annotated[
        str, typer.Argument(help="figure2, or a figure that runs keep beside their records: figure3 or figure4.")
    ],
    out: Annotated[Path, typer.Option(help="The .png, .svg or .pdf file to write.")],
    method: Annotated[
        str | None, typer.Option(rich_help_panel=RECORDS, help="A method, or METHOD-ABLATION, of the records.")
    ] = None,
    model: Annotated[str | None, typer.Option(rich_help_panel=RECORDS, help="Model of the records.")] = None,
    task: Annotated[str | None, typer.Option(rich_help_panel=RECORDS, help="Task of the records.")] = None,
    seed: Annotated[
        int | None, typer.Option(rich_help_panel=RECORDS, help="Seed of the run; by default the lowest.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Draw one of the paper's figures for print."""
    from harness.commands.plot import PlotOptions, plot_text

    print_result(visible(plot_text(PlotOptions(name, out, results, method, model, task, seed))))


@app.command(rich_help_panel="Set up", epilog=_epilog("python -m harness pretrain --out my-tiny"))
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the weights. Files in it are replaced.")] = Path("runs/tiny"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the data and of the initial weights.")] = 0,
) -> None:
    """Train the tiny backbone from scratch, as the shipped one was trained."""
    from harness.pretrain import pretrain as make

    print_result(json.dumps(make(out, seed=seed), indent=2))


@app.command(
    rich_help_panel="Make runs",
    epilog=_epilog("python -m harness predict --adapter results/adapters/... --image FILE --question '...'"),
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
    device: Device = "auto",
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Answer one question, or caption one image, with a saved adapter."""
    from harness.commands.predict import predict_text

    options = typed.choices(choices or [])
    print_result(predict_text(adapter, question, image, options, hint, device, format.value))


@app.command(rich_help_panel="Set up", epilog=_epilog("python -m harness doctor --model 7b"))
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


@score_app.command("scienceqa", epilog=_epilog("python -m harness score scienceqa --problems problems.json ..."))
def score_scienceqa(
    problems: Annotated[Path, typer.Option(help="The benchmark's problems.json.")],
    splits: Annotated[Path, typer.Option(help="The benchmark's pid_splits.json.")],
    predictions: Annotated[
        Path, typer.Option(help="predictions.jsonl of a run, a JSON object {qid: index}, or a published results file.")
    ],
    split: Annotated[str, typer.Option(help="Split to score.")] = "test",
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Print the accuracy in the nine columns of the paper, with standard errors."""
    from harness.commands.score import scores_text
    from harness.evaluation.score_scienceqa import score_scienceqa_files

    scores = score_scienceqa_files(problems, splits, predictions, split)
    _print_markdown(scores_text(scores, format.value), format.value)


@score_app.command("coco", epilog=_epilog("python -m harness score coco --references dataset_coco.json ..."))
def score_coco(
    references: Annotated[
        Path,
        typer.Option(
            help="Karpathy's dataset_coco.json, COCO's annotations, a JSON object from image ids to lists of captions, "
            "or predictions.jsonl of a run."
        ),
    ],
    predictions: Annotated[
        Path,
        typer.Option(
            help="A COCO results file: a list of objects with image_id and caption; or predictions.jsonl of a run."
        ),
    ],
    split: Annotated[str, typer.Option(help="Split to score, if the references are Karpathy's.")] = "test",
    only_predicted: Annotated[
        bool, typer.Option("--only-predicted", help="Leave out images without a predicted caption instead of stopping.")
    ] = False,
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Print BLEU, METEOR, ROUGE-L, CIDEr and SPICE x 100, with standard errors."""
    from harness.commands.score import scores_text
    from harness.evaluation.score_coco import score_coco_files

    scores = score_coco_files(references, predictions, split, only_predicted=only_predicted)
    _print_markdown(scores_text(scores, format.value), format.value)


@records_app.command("config", epilog=_epilog("python -m harness records config RECORD.json > run.toml"))
def records_config(record: Annotated[Path, typer.Argument(help="The JSON file of a record.")]) -> None:
    """Print a settings file that makes the run of a record again, for `run --config`."""
    from harness.config.settings import settings_of_record
    from harness.records import read_record

    print_result(settings_of_record(read_record(record)), end="")


@results_app.command("merge", epilog=_epilog("python -m harness results merge shard1 shard2 --results results"))
def results_merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Results folders to take runs from.")],
    results: Annotated[Path, typer.Option(help="Results folder to copy them into.")] = Path("results"),
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Check results folders and copy their runs into one. Nothing is overwritten; conflicts are listed."""
    from harness.commands.merge import merge_command

    raise typer.Exit(merge_command(folders, results, format.value))


@data_app.command("fetch", epilog=_epilog("python -m harness data fetch scienceqa --data-root DIR"))
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


@data_app.command("check", epilog=_epilog("python -m harness data check scienceqa --data-root DIR"))
def data_check(
    task: Annotated[str, typer.Argument(help="Task whose data the folder holds: scienceqa or coco.")],
    data_root: Annotated[Path, typer.Option(help="Data folder in the official layout.")],
    full: Annotated[bool, typer.Option("--full", help="Require that the folder holds the full benchmark.")] = False,
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Count the samples of a data folder, decode its images, find duplicates and print hashes."""
    from harness.commands.data import check_command

    raise typer.Exit(check_command(task, data_root, full, format.value, Console()))


def main() -> None:
    """Run the command line. A user error is printed as one line and ends with exit status 2."""
    prepare_streams()
    try:
        typed.require_utf8(sys.argv[1:])
        app()
    except UserError as error:
        print_error(str(error))
        sys.exit(2)
    except OSError as error:  # a path that is too long, a folder without permission, a full disk
        place = error.filename if isinstance(error.filename, str) else "the operating system"
        print_error(f"{place}: {error.strerror or error}; give another path, or repair this one")
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
