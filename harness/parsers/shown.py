"""What the help of every subcommand ends with, and how results in Markdown are printed."""

from harness import terminal
from harness.streams import print_result

EXIT_CODES = (
    "Exit status: 0 done; 1 a run failed, or a difference or conflict was found; 2 wrong usage or something missing; "
    "128 plus the number of the signal that ended it."
)


def epilog(example: str) -> str:
    """Return the end of the help of a subcommand.

    Args:
        example: a command line that works.
    """
    return f"Example: `{example}`\n\n{EXIT_CODES}"


def print_markdown(text: str, format: str, end: str = "\n") -> None:
    """Print the result of a command; in a terminal, Markdown is laid out for its width.

    Args:
        text: the result.
        format: its format; all but `markdown` are printed as they are.
        end: printed behind the text, where it is printed as it is.
    """
    width = terminal.terminal_width() if format == "markdown" else None
    if width is None:
        print_result(text, end=end)
    else:
        print_result(terminal.document(text, width), end="")
