"""The subcommand `run`."""

from pathlib import Path
from typing import Annotated

import typer

from harness import typed
from harness.options import Device, Dtype, ExecutorName, ProtocolName, ProtocolOption, Results, TextFormat, not_nan
from harness.parsers.shown import epilog

app = typer.Typer()


def _use_config(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None and not context.resilient_parsing:
        from harness.commands.config_file import use_config

        use_config(context, path)
    return path


@app.command(
    rich_help_panel="Make runs",
    epilog=epilog("python -m harness run --methods dehvf,memvp --model tiny --seeds 0,1,2"),
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
            "By default the two of the example below.",
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
            "or a download. The models tiny and smol use the small world.",
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
            help="Language model in place of the preset's: hub id, folder or GGUF file of a Llama model.",
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
            help="Samples per forward pass in training. It changes the memory, and the random numbers of dropout. auto "
            "takes all samples that a process has of a batch, and half of them each time that memory runs out.",
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
            help="Runs side by side on a CPU. By default as many as cores and memory allow, with --threads cores each.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            rich_help_panel="Machine",
            min=1,
            max=typed.MOST_THREADS,
            help="Compute threads per run. By default 1 for the tiny model, else all cores, divided among --jobs.",
        ),
    ] = None,
    executor: Annotated[
        ExecutorName,
        typer.Option(
            rich_help_panel="Machine",
            help="Where the runs are made: local is this machine, ray a Ray cluster, submitit a Slurm cluster or, "
            "without Slurm, processes on this machine. All machines must see the same folders.",
        ),
    ] = ExecutorName.local,
    submitit: Annotated[
        str,
        typer.Option(
            rich_help_panel="Machine",
            metavar="PAIRS",
            help="Parameters of submitit's jobs as KEY=VALUE with commas between them, such as timeout_min=600.",
        ),
    ] = "",
) -> None:
    """Train and score methods, write one record per run, and print the table."""
    from harness.commands import config_file
    from harness.commands.run import run_command
    from harness.commands.run_options import RunOptions
    from harness.run.progress import RunConsole

    pairs = typed.settings(set_ or [])
    config_file.choose_length(context, pairs)
    epochs, steps = context.params["epochs"], context.params["steps"]
    settings = config_file.settings_of(context, pairs)
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
        executor=executor.value,
        submitit=typed.parameters("--submitit", submitit),
    )
    raise typer.Exit(run_command(options, RunConsole()))
