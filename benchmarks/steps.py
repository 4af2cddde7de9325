"""Run prepared commands within a time budget, and keep what each one measured."""

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.errors import UserError
from harness.files import write_atomic
from harness.records import Record, read_records
from harness.stopping import stop_held_back

GRACE_S = 20.0
"""Seconds at the end of the budget that no step may use: a step that is stopped still writes its record in them."""
MOST = 2.0
"""A step may take this many times its estimate, so that one that hangs leaves time for the others."""
ROOT = Path(__file__).parents[1]
"""The folder in which the commands run."""
FILE, LOG = "steps.json", "log.txt"
"""The files in the output folder: what each step measured, and what the commands printed."""

Status = Literal["done", "failed", "stopped", "skipped"]


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: a short name.
        estimate_s: about how many seconds it takes. After `MOST` times as many it is stopped.
        command: the command. `{results}` stands for an empty folder that takes its records, and `{profile}` for a file
            that takes its profile.
        missing: what the project cannot do yet and the step needs; None where nothing is missing.
    """

    name: str
    estimate_s: float
    command: Sequence[str]
    missing: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        name: name of the step.
        status: `stopped` is a step that took too long or was stopped from outside.
        reason: why it is not done; empty where it is.
        seconds: how long it took.
        records: the records that it wrote.
        profile: the profile that it wrote; None without one.
    """

    name: str
    status: Status
    reason: str = ""
    seconds: float = 0.0
    records: Sequence[Record] = ()
    profile: Any = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        records = [record.model_dump(mode="json") for record in self.records]
        return {**vars(self), "seconds": round(self.seconds, 1), "records": records}


def run_steps(
    steps: Sequence[Step],
    budget_s: float,
    out: Path,
    say: Callable[[str], None] = print,
    on_outcome: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """Run the steps in their order. One that does not fit into the rest of the budget is skipped; a failure ends none.

    Args:
        steps: the steps, most valuable first.
        budget_s: seconds for all of them together.
        out: folder for `FILE`, which is written anew after every step, and for `LOG`.
        say: receives one line before and after every step.
        on_outcome: receives all outcomes so far after every step.

    Raises:
        KeyboardInterrupt: a signal stopped the steps. What the present one had measured is kept first.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / LOG).write_text("", encoding="utf-8")
    end = time.monotonic() + budget_s - GRACE_S
    outcomes: list[Outcome] = []

    def keep(outcome: Outcome) -> None:
        outcomes.append(outcome)
        write_atomic(out / FILE, json.dumps([one.as_json() for one in outcomes], indent=1) + "\n")
        on_outcome(outcomes)
        say(f"{outcome.name}: {outcome.status} in {outcome.seconds:.0f} s {outcome.reason}".rstrip())

    for step in steps:
        left = max(end - time.monotonic(), 0.0)
        if step.missing:
            keep(Outcome(step.name, "skipped", step.missing))
        elif step.estimate_s > left:
            keep(Outcome(step.name, "skipped", f"takes about {step.estimate_s:.0f} s, and {left:.0f} s are left"))
        else:
            say(f"{step.name}: about {step.estimate_s:.0f} s of {left:.0f} s")
            _run(step, left, out / LOG, keep)
    return outcomes


def _run(step: Step, left_s: float, log: Path, keep: Callable[[Outcome], None]) -> None:
    """Run the command of one step, and keep its outcome even where a signal stops it.

    Args:
        step: the step.
        left_s: seconds that are left of the budget.
        log: receives what the command prints.
        keep: receives the outcome.
    """
    with tempfile.TemporaryDirectory() as folder, log.open("a", encoding="utf-8") as printed:
        results, profile = Path(folder, "results"), Path(folder, "profile.json")
        places = {"{results}": str(results), "{profile}": str(profile)}
        command = [places.get(part, part) for part in step.command]
        print(f"## {step.name}: {' '.join(command)}", file=printed, flush=True)
        begun = time.monotonic()

        def ended(status: Status, reason: str) -> Outcome:
            seconds = time.monotonic() - begun
            try:
                records = read_records(results) if results.is_dir() else []
                found = json.loads(profile.read_text(encoding="utf-8")) if profile.is_file() else None
            except UserError as error:
                return Outcome(step.name, "failed", str(error), seconds)
            return Outcome(step.name, status, reason, seconds, records, found)

        try:
            # A file, not a pipe: a helper process that outlives the command would keep a pipe open.
            with contextlib.ExitStack() as started:
                with stop_held_back():  # a stop that comes while the step is being started must end the step, too
                    process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, cwd=ROOT)
                    started.callback(_end, process)
                status, reason = _wait(process, step.estimate_s, left_s)
        except KeyboardInterrupt:
            keep(ended("stopped", "together with all steps"))
            raise
        keep(ended(status, reason))


def _wait(process: subprocess.Popen[bytes], estimate_s: float, left_s: float) -> tuple[Status, str]:
    """Wait for a process, and end it where it takes much longer than estimated, or at the end of the budget."""
    limit_s = min(left_s, MOST * estimate_s)
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        _end(process)
        why = "at the end of the budget" if limit_s == left_s else f"at {MOST:g} times its estimate"
        return "stopped", f"{why}, after {limit_s:.0f} s"
    return ("done", "") if code == 0 else ("failed", f"exit status {code}; {LOG} has what it printed")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process that still runs to end, and kill it if it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE_S / 2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
