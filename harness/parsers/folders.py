"""The subcommands of `records` and `results`."""

from pathlib import Path
from typing import Annotated

import typer

from harness.options import DryPush, Private, Repository, TextFormat, TextOutput
from harness.parsers.shown import epilog
from harness.streams import print_result

results_app = typer.Typer(help="Use folders of results.", no_args_is_help=True)
records_app = typer.Typer(help="Use the records of runs.", no_args_is_help=True)


@records_app.command("config", epilog=epilog("python -m harness records config RECORD.json > run.toml"))
def records_config(record: Annotated[Path, typer.Argument(help="The JSON file of a record.")]) -> None:
    """Print a settings file that makes the run of a record again, for `run --config`."""
    from harness.config.settings import settings_of_record

    print_result(settings_of_record(record), end="")


@results_app.command("merge", epilog=epilog("python -m harness results merge shard1 shard2 --results results"))
def results_merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Results folders to take runs from.")],
    results: Annotated[Path, typer.Option(help="Results folder to copy them into.")] = Path("results"),
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Check results folders and copy their runs into one.

    A completed run replaces one that failed or was interrupted. Nothing else is overwritten; conflicts are listed.
    """
    from harness.commands.merge import merge_command

    raise typer.Exit(merge_command(folders, results, format.value))


@results_app.command("push", epilog=epilog("python -m harness results push --repo me/results --dry-run"))
def results_push(
    repo: Repository,
    results: Annotated[Path, typer.Option(help="Results folder to upload.")] = Path("results"),
    private: Private = False,
    dry_run: DryPush = False,
) -> None:
    """Upload the records to the model hub as a data set: a table with a row per record, the records, and a card."""
    from harness.commands.push import push_text
    from harness.sharing.results import results_upload

    print_result(push_text(results_upload(results, repo), private, dry_run))
