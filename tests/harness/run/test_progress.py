"""What the terminal shows of a run, and what a log file gets instead."""

import io

import pytest
from rich.console import Console

from harness.run.progress import LOG_EVERY, RunProgress, print_line


def logged(total: int) -> list[str]:
    """The lines of one phase where the output is not a terminal."""
    out = io.StringIO()
    with RunProgress(Console(file=out, width=40)) as progress:
        progress.start("memvp seed 0: training", total)
        for done in range(1, total + 1):
            progress.advance(done, f"loss {done}")
    return out.getvalue().splitlines()


@pytest.mark.parametrize("total", [1, 3, 10])
def test_a_short_phase_logs_every_step(total: int) -> None:
    assert logged(total) == [f"memvp seed 0: training: {n}/{total} loss {n}" for n in range(1, total + 1)]


@pytest.mark.parametrize("total", [100, 105])
def test_a_long_phase_logs_a_few_steps_and_the_last(total: int) -> None:
    lines = logged(total)
    assert LOG_EVERY <= len(lines) <= LOG_EVERY + 1
    assert lines[-1] == f"memvp seed 0: training: {total}/{total} loss {total}"


def test_a_line_is_printed_as_it_is() -> None:
    out = io.StringIO()
    line = "[bold]markup[/bold] and a line that is longer than the width of the console"
    print_line(Console(file=out, width=20), line)
    assert out.getvalue() == f"{line}\n"
