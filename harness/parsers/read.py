"""The subcommands that show what records say."""

from pathlib import Path
from typing import Annotated

import typer

from harness import terminal, typed
from harness.errors import UserError
from harness.escape import visible, visible_lines
from harness.options import RECORDS, ProtocolName, Results, ShownProtocol, TableFormat, TextFormat, TextOutput
from harness.parsers.shown import epilog, print_markdown
from harness.streams import print_result

LOOK = "Look"
TIMINGS = "Table 2 only"

app = typer.Typer()


@app.command(rich_help_panel="Read results", epilog=epilog("python -m harness table --table 1 --format latex"))
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
            metavar="FORMAT",
            help="markdown, latex, csv, json or html. By default what fits a terminal, and markdown in a file or a "
            "pipe.",
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
        fewer = format is None and terminal.terminal_width() is not None and not everything
        text = against_paper_text(results, number, model, as_text, protocol.value, measured_only=fewer)
        print_markdown(text, as_text)
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
        width=terminal.terminal_width(),
    )
    print_result(table_command_text(options))


@app.command(rich_help_panel="Read results", epilog=epilog("python -m harness compare dehvf memvp"))
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

    width = terminal.terminal_width()
    print_result(compare_text(results, first, second, model, task, format.value, protocol.value, width=width))


@app.command(rich_help_panel="Read results", epilog=epilog("python -m harness audit"))
def audit(format: TextOutput = TextFormat.markdown, results: Results = Path("results")) -> None:
    """Check by arithmetic whether accuracies can be true: those that the paper prints, and those of the records."""
    from harness.report.audit import audit_text

    print_markdown(audit_text(results, format.value), format.value)


@app.command(rich_help_panel="Read results", epilog=epilog("python -m harness readme --results results"))
def readme(results: Results = Path("results")) -> None:
    """Write README.md and schema.json into the results folder, from its records."""
    from harness.records import export_schema
    from harness.report.readme import write_readme

    export_schema(results / "schema.json")
    print_result(visible(str(write_readme(results))))


@app.command(rich_help_panel="Read results", epilog=epilog("python -m harness report --results results --out site"))
def report(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="Folder of the page. Its index.html is replaced.")] = Path("site"),
) -> None:
    """Write one page with all leaderboards, figures, answers and records. It needs no server and no network."""
    from harness.commands.report import report_text

    print_result(visible_lines(report_text(results, out)))


@app.command(rich_help_panel="Read results", epilog=epilog("python -m harness plot figure2 --out figure2.pdf"))
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
