"""The subcommands that exchange adapters over the model hub."""

from pathlib import Path
from typing import Annotated

import typer

from harness.options import DryPush, Private, Repository
from harness.parsers.shown import epilog
from harness.streams import print_result

app = typer.Typer()
_PANEL = "Share"


@app.command(
    rich_help_panel=_PANEL,
    epilog=epilog("python -m harness push results/adapters/scienceqa/tiny/memvp/seed0-... --repo me/memvp --dry-run"),
)
def push(
    adapter: Annotated[
        Path, typer.Argument(help="Folder of a saved adapter, in its results folder, where its record is.")
    ],
    repo: Repository,
    private: Private = False,
    dry_run: DryPush = False,
) -> None:
    """Upload a saved adapter to the model hub, with a card made from its record."""
    from harness.commands.push import push_text
    from harness.sharing.adapters import adapter_upload

    print_result(push_text(adapter_upload(adapter, repo), private, dry_run))


@app.command(
    rich_help_panel=_PANEL,
    epilog=epilog("python -m harness pull me/memvp --out memvp"),
)
def pull(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the model hub.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the repository; by default its newest state.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the adapter. By default NAME, in the current folder.")
    ] = None,
) -> None:
    """Download an adapter from the model hub and check it."""
    from harness.commands.pull import pull_text

    print_result(pull_text(repo, out, revision))
