"""The command line: it gathers the subcommands of `harness.parsers` and says how each of them ends."""

import os
import sys
from typing import Annotated, Any

import typer

from harness import typed
from harness.errors import UserError
from harness.parsers import again, cost, read, run, setup, share
from harness.parsers.folders import records_app, results_app
from harness.parsers.score import score_app
from harness.parsers.setup import data_app
from harness.parsers.shown import EXIT_CODES
from harness.streams import end_unread, prepare_streams, print_error, print_result

PACKAGE = "peft-vl-bench"

app = typer.Typer(
    name=PACKAGE,
    help="Reproducibility benchmark for parameter-efficient vision-language fine-tuning.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


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


# The order of the help.
for group in (run.app, again.app, read.app, cost.app, share.app, setup.app):
    app.add_typer(group)
app.add_typer(score_app, name="score", rich_help_panel="Read results")
app.add_typer(data_app, name="data", rich_help_panel="Set up")
app.add_typer(records_app, name="records", rich_help_panel="Read results")
app.add_typer(results_app, name="results", rich_help_panel="Read results")


# Wrong use of an option or argument, for which typer exports no name.
_WrongUse: Any = typer.BadParameter.__base__


def _print_wrong_use(error: Any) -> None:
    """Print what typer says about an option or argument as one line."""
    text = " ".join(error.format_message().replace("Value error, ", "").split())
    if text:  # it is empty where the help was printed instead
        command = error.ctx.command_path if error.ctx else PACKAGE
        print_error(text if text.endswith("?") else f"{text.rstrip('.')}; see `{command} --help`")


def _require_folder() -> None:
    """Check that the working directory exists. Libraries would end the process while they are imported."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"the working directory: cannot be used ({error.strerror}); change into another folder"
        ) from error


def _what_failed(error: OSError) -> str:
    """Return what an error of the operating system says, as one line."""
    try:
        print_result("", end="")  # what is left of an output that could not be written fails again
    except UserError as unwritten:
        return str(unwritten)
    place = error.filename if isinstance(error.filename, str) else "the operating system"
    return f"{place}: {error.strerror or error}; give another path, or repair this one"


def main() -> None:
    """Run the command line. A user error is printed as one line and ends with exit status 2."""
    prepare_streams()
    try:
        _require_folder()
        typed.require_utf8(sys.argv[1:])
        sys.exit(app(standalone_mode=False))
    except _WrongUse as error:
        _print_wrong_use(error)
        sys.exit(2)
    except UserError as error:
        print_error(str(error))
        sys.exit(2)
    except BrokenPipeError:
        end_unread()
    except OSError as error:  # a path that is too long, a folder without permission, a full disk
        print_error(_what_failed(error))
        sys.exit(2)
    except MemoryError:
        print_error("there is too little memory for this command; give smaller files or numbers, or free some memory")
        sys.exit(2)
    except RecursionError:
        print_error("a file or an option is nested too deeply; correct it")
        sys.exit(2)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer and rich, which print the help, end with status 1
            end_unread()
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
