"""Kill runs of every method at random moments, finish them, and compare them with runs in one go.

For each method, one run is made without interruption. Another one with the same spec is started again and again and
killed by SIGKILL at a random moment of training, of writing a checkpoint, of evaluating, scoring, or writing the
results. The last start is left to finish. Both must have the same adapter, the same predictions and the same metrics.

    python -m tests.kill_runs --kills 10 --methods memvp,dehvf
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from harness.records import predictions_path, read_records, record_path
from methods import registry
from tests.command_line import fork, quick_run
from tests.folders import save_clip, save_llm, save_mini

STEPS = 40
ENDING_S = 60


@dataclass(frozen=True)
class Folders:
    """The small data set and backbone of the runs."""

    llm: Path
    clip: Path
    data: Path


class Run:
    """A run in a process of its own, which prints a line for every step and every batch.

    Args:
        method: the method.
        folders: data and backbone.
        results: folder of its record.
        steps: number of its optimiser steps.
    """

    def __init__(self, method: str, folders: Folders, results: Path, steps: int) -> None:
        arguments = quick_run(folders.llm, folders.clip, folders.data, results)
        arguments[arguments.index("--steps") + 1] = str(steps)
        arguments += ["--methods", method, "--checkpoint-minutes", "0", "--set", "eval_batch_size=3"]
        self._process = fork(*arguments, "--log-seconds", "0", "--jobs", "1", "--threads", "1")
        self.lines: list[str] = []

    def read(self, lines: int) -> bool:
        """Read up to a number of lines in all; return whether there were as many."""
        while len(self.lines) < lines and (line := self._process.stdout.readline()):
            self.lines.append(line)
        return len(self.lines) == lines

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def end(self) -> int:
        """Read what it still prints, and return its exit status; negative for the signal that ended it."""
        with self._process as process:
            self.lines += process.stdout.readlines()
            return process.wait(ENDING_S)

    def finish(self) -> int:
        """Let it end by itself, and return how many lines it printed."""
        if status := self.end():
            raise SystemExit(f"a run ended with status {status}:\n{''.join(self.lines)}")
        return len(self.lines)


def outcome(results: Path) -> tuple[object, ...]:
    """Return what two runs with the same spec must share: the metrics, and the hashes of predictions and adapter."""
    (record,) = read_records(results)
    files = [predictions_path(record_path(record, results)), *sorted((results / "adapters").rglob("*.*"))]
    hashes = tuple((file.name, sha256(file.read_bytes()).hexdigest()) for file in files)
    return record.status, record.metrics, record.loss, record.steps, record.truncated, hashes


def is_over(results: Path) -> bool:
    """Return whether the run is complete, and nothing of it is left to be done."""
    statuses = [record.status for record in read_records(results)]
    return statuses == ["completed"] and not (results / "unfinished").exists()


def kill_and_compare(
    method: str, kills: int, folders: Folders, root: Path, moments: random.Random, steps: int = STEPS
) -> str:
    """Return a line about one method."""
    whole, killed = root / f"{method}-whole", root / f"{method}-killed"
    lines = Run(method, folders, whole, steps).finish()
    done, late, resumed, hit = 0, 0, 0, Counter[str]()
    while done < kills:
        run = Run(method, folders, killed, steps)
        # A start that goes on from earlier work prints fewer lines. What it writes last comes after its last line.
        run.read(moments.randint(1, lines))
        time.sleep(moments.choice((0.0, moments.uniform(0.0, 0.05), moments.uniform(0.0, 0.5))))
        run.kill()
        status = run.end()
        resumed += any("resuming after" in line or "training is finished" in line for line in run.lines)
        if is_over(killed):
            if outcome(killed) != outcome(whole):
                return f"{method}: DIFFERENT after {done} kills"
            # It was killed too late: begin a new run, so that every kill hits an unfinished one.
            late += 1
            killed = root / f"{method}-killed-{late}"
        elif status != -signal.SIGKILL:
            raise SystemExit(f"{method}: a run ended with status {status}:\n{''.join(run.lines)}")
        else:
            done += 1
            hit[next((phase for phase in ("evaluating", "training") if phase in (run.lines or [""])[-1]), "other")] += 1
    Run(method, folders, killed, steps).finish()
    same = is_over(killed) and outcome(killed) == outcome(whole)
    places = ", ".join(f"{count} in {phase}" for phase, count in sorted(hit.items()))
    verdict = "same" if same else "DIFFERENT"
    return f"{method}: {verdict} after {done} kills ({places}); {resumed} starts went on from earlier work"


def main() -> int:
    """Kill runs of every registered method; the exit status is 1 where one ends differently."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill_runs", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="kills per method")
    parser.add_argument("--methods", default=",".join(registry()), help="methods, separated by commas; default: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    different = False
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        folders = Folders(save_llm(root / "small-llm"), save_clip(root / "small-clip"), save_mini(root / "mini"))
        for method in options.methods.split(","):
            line = kill_and_compare(method, options.kills, folders, root, moments)
            different |= "DIFFERENT" in line
            print(line, flush=True)
    return int(different)


if __name__ == "__main__":
    sys.exit(main())
