"""Types of the options that several subcommands share, and checks of single values."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

MACHINE = "Machine"
"""The panel of the help with the options that say what a command runs on."""
RECORDS = "Records"
"""The panel of the help with the options that say where records are and which are meant."""


class TableFormat(StrEnum):
    """Formats of a table."""

    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"
    html = "html"


class ProtocolName(StrEnum):
    """What a run asks and reads."""

    uniform = "uniform"
    published = "published"


class ExecutorName(StrEnum):
    """Where runs are made."""

    local = "local"
    ray = "ray"
    submitit = "submitit"


class TextFormat(StrEnum):
    """Formats of other output: markdown for people, JSON for programs."""

    markdown = "markdown"
    json = "json"


Results = Annotated[Path, typer.Option("--results", rich_help_panel=RECORDS, help="Folder of the records.")]
Device = Annotated[
    str, typer.Option(rich_help_panel=MACHINE, help="cpu, cuda, cuda:N, or auto: a GPU where there is one.")
]
Dtype = Annotated[
    str,
    typer.Option(
        rich_help_panel=MACHINE,
        help="Dtype of the frozen weights: float32, bfloat16, or auto: bfloat16 on a GPU, else float32.",
    ),
]
ProtocolOption = Annotated[
    ProtocolName,
    typer.Option(
        "--protocol",
        rich_help_panel="Runs",
        help="uniform: prompts, decoder and reading of answers are the same for every method, which makes methods "
        "comparable. published: they are those of each method's own code, to reproduce its published numbers.",
    ),
]
ShownProtocol = Annotated[
    ProtocolName,
    typer.Option(
        "--protocol",
        rich_help_panel=RECORDS,
        help="Protocol of the runs: uniform or published. They are never mixed.",
    ),
]
Methods = Annotated[str, typer.Option(help="Names of methods, separated by commas, or `all`.")]
CostModel = Annotated[str, typer.Option(help="Preset, or folder or hub id of a Llama model.")]
TextLength = Annotated[int, typer.Option(min=1, max=1_000_000, help="Text tokens per sample.")]
NewTokens = Annotated[int, typer.Option(min=1, max=100_000, help="Tokens that inference decodes per sample.")]
TrainBatch = Annotated[int, typer.Option(min=1, max=1_000_000, help="Samples per training step.")]
EvalBatch = Annotated[int, typer.Option(min=1, max=1_000_000, help="Samples per batch of inference.")]
TextOutput = Annotated[TextFormat, typer.Option(help="Output format.")]
Repository = Annotated[
    str,
    typer.Option(
        "--repo", metavar="OWNER/NAME", help="Repository on the model hub. It is made if there is no such repository."
    ),
]
Private = Annotated[bool, typer.Option("--private", help="Only its owner may see the repository.")]
DryPush = Annotated[bool, typer.Option("--dry-run", help="Upload nothing; print the card and the files.")]


def not_nan(value: float | None) -> float | None:
    """Refuse NaN, which no comparison with the limits of an option refuses."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is not a number; give a number")
    return value
