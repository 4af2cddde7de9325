"""What the terminal shows of a run, and what a log file gets instead."""

import errno
import io
import pickle
import re
from itertools import pairwise

import pytest
from rich.console import Console

from harness.run.progress import Progress, RunConsole, SweepProgress, print_line


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def logged(total: int, seconds_per_step: float, log_seconds: float = 30.0, runs: int = 1) -> list[tuple[float, str]]:
    """The lines of one phase where the output is no terminal, each with the time at which it was printed."""
    out, clock = io.StringIO(), Clock()
    lines: list[tuple[float, str]] = []
    with (
        SweepProgress(Console(file=out, width=40), runs, log_seconds, clock=clock) as sweep,
        sweep.run("memvp seed 0") as progress,
    ):
        progress.plan({"training": 4 * total})
        progress.start("training", total)
        for done in range(1, total + 1):
            clock.now += seconds_per_step
            progress.advance(done, f"loss {done}")
            lines += [(clock.now, line) for line in out.getvalue().splitlines()[len(lines) :]]
    return lines


def test_a_line_says_when_where_how_well_and_how_long() -> None:
    _, line = logged(100, 1.0, runs=3)[-6]
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d memvp seed 0: training: 50/100 \(50 %\) "
        r"loss 50, 4 samples/s, run 0:00:50 left, sweep 0:04:10 left",
        line,
    )


def test_a_short_phase_has_two_lines() -> None:
    lines = [line for _, line in logged(200, 0.01)]
    assert len(lines) == 2 and "training: 0/200 (0 %)" in lines[0] and "200/200 (100 %) loss 200" in lines[1]


@pytest.mark.parametrize(("total", "seconds"), [(1000, 0.1), (1000, 5.0), (50, 40.0), (37, 9.0)])
def test_a_log_never_falls_silent_and_is_never_flooded(total: int, seconds: float) -> None:
    lines = logged(total, seconds)
    times = [when for when, _ in lines]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < 30 + seconds + 1e-6
    assert all(gap >= 3 - 1e-6 for gap in gaps[1:-1])
    assert f"{total}/{total} (100 %)" in lines[-1][1]


def test_a_phase_of_some_minutes_has_a_line_per_tenth() -> None:
    shares = [int(re.findall(r"\((\d+) %\)", line)[0]) for _, line in logged(1000, 0.2)]
    assert shares == list(range(0, 101, 10))


def test_a_line_per_step_can_be_asked_for() -> None:
    assert len(logged(50, 0.001, log_seconds=0)) == 51


def test_one_run_has_no_time_of_a_sweep() -> None:
    assert not [line for _, line in logged(10, 1.0) if "sweep" in line]


def test_a_terminal_gets_bars_and_no_lines() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=150)
    with SweepProgress(console, 1) as sweep, sweep.run("memvp seed 0") as progress:
        progress.plan({"training": 12})
        progress.start("training", 3)
        progress.advance(2, "loss 1.25")
        sweep.bar.refresh()
        shown = out.getvalue()
    assert "memvp seed 0: training" in shown and "2/3" in shown and "loss 1.25" in shown
    assert "(66 %)" not in shown


def test_what_a_run_reports_can_be_sent_to_another_process() -> None:
    calls: list[bytes] = []

    class Sent:
        def __getattr__(self, name: str) -> object:
            return lambda *arguments: calls.append(pickle.dumps((name, arguments)))

    remote: Progress = Sent()  # type: ignore[assignment]  # it answers every call
    remote.plan({"training": 8, "evaluating": 4})
    remote.start("training", 2)
    remote.say("resuming")
    remote.advance(2, "loss 1.25")
    out = io.StringIO()
    with SweepProgress(Console(file=out), 1) as sweep, sweep.run("memvp seed 0") as progress:
        for name, arguments in map(pickle.loads, calls):
            getattr(progress, name)(*arguments)
    assert "memvp seed 0: resuming\n" in out.getvalue() and "2/2 (100 %) loss 1.25" in out.getvalue()


def test_a_line_is_printed_as_it_is() -> None:
    out = io.StringIO()
    line = "[bold]markup[/bold] and a line that is longer than the width of the console"
    print_line(Console(file=out, width=20), line)
    assert out.getvalue() == f"{line}\n"


def test_a_terminal_gets_the_outcome_of_a_run_in_whole_words() -> None:
    said = "memvp seed 0: completed: NAT 24.00, SOC 90.00, TXT 50.00, [bold]\nIMG 18.52, NO 100.00, Avg 45.00"
    out, log = io.StringIO(), io.StringIO()
    with SweepProgress(Console(file=out, force_terminal=True, width=40), 1) as sweep:
        sweep.say(said)
    lines = list(filter(None, re.sub(r"\r|\x1b\[[\d?]*\w", "", out.getvalue()).split("\n")))
    assert " ".join(lines) == said.replace("\n", "\\n") and max(map(len, lines)) <= 40
    with SweepProgress(Console(file=log, width=40), 1) as sweep:
        sweep.say(said)
    assert log.getvalue() == said.replace("\n", "\\n") + "\n"


class Full(io.StringIO):
    """An output on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_the_output_and_not_the_run() -> None:
    console = RunConsole(file=Full())
    print_line(console, "a line")
    print_line(console, "another")
    assert console.quiet


def test_a_line_cannot_act_on_the_terminal() -> None:
    out = io.StringIO()
    print_line(Console(file=out, width=200), "[bold]red\x1b[31m\nline")
    assert out.getvalue() == "[bold]red\\x1b[31m\\nline\n"
