"""Kill runs of every method at random moments, finish them, and compare them with runs in one go.

For each method, one run is made without interruption. Another one with the same spec is started again and again and
killed by SIGKILL at a random moment of training, of writing a checkpoint, of evaluating, scoring, or writing the
results. The last start is left to finish. Both must have the same adapter, the same predictions and the same metrics.

A run is a process that is forked from this one, so that it need not import everything first.

    python -m tests.kill_runs --kills 10 --methods memvp,dehvf
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
import transformers.models.llama.modeling_llama

import harness.commands.run
from harness import cli
from harness.records import predictions_path, read_records, record_path
from methods import registry
from tests.command_line import quick_run
from tests.folders import save_clip, save_llm, save_mini

STEPS = 40
_USED = (torch, transformers, harness.commands.run)
"""Modules that every run imports; importing them here is what the runs are spared."""


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
    """

    def __init__(self, method: str, folders: Folders, results: Path) -> None:
        arguments = quick_run(folders.llm, folders.clip, folders.data, results)
        arguments[arguments.index("--steps") + 1] = str(STEPS)
        arguments += ["--methods", method, "--checkpoint-minutes", "0", "--set", "eval_batch_size=3"]
        arguments += ["--log-seconds", "0", "--jobs", "1", "--threads", "1"]
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            sys.argv = ["peft-vl-bench", *arguments]
            status = 1
            try:
                cli.main()
            except Exception:
                traceback.print_exc(file=sys.stdout)
            except SystemExit as ended:
                status = int(ended.code or 0)
            finally:
                sys.stdout.flush()
                os._exit(status)
        os.close(writing)
        self._output = os.fdopen(reading, encoding="utf-8", errors="replace")
        self.lines: list[str] = []

    def read(self, lines: int) -> bool:
        """Read up to a number of lines in all; return whether there were as many."""
        while len(self.lines) < lines and (line := self._output.readline()):
            self.lines.append(line)
        return len(self.lines) == lines

    def kill(self) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Read what it still prints, and return its exit status; negative for the signal that ended it."""
        self.lines += self._output.readlines()
        self._output.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

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


def kill_and_compare(method: str, kills: int, folders: Folders, root: Path, moments: random.Random) -> str:
    """Return a line about one method."""
    whole, killed = root / f"{method}-whole", root / f"{method}-killed"
    lines = Run(method, folders, whole).finish()
    done, resumed, hit = 0, 0, Counter[str]()
    while done < kills:
        run = Run(method, folders, killed)
        # A start that goes on from earlier work prints fewer lines. What it writes last comes after its last line.
        run.read(moments.randint(1, lines))
        time.sleep(moments.choice((0.0, moments.uniform(0.0, 0.05), moments.uniform(0.0, 0.5))))
        run.kill()
        status = run.end()
        resumed += any("resuming after" in line or "training is finished" in line for line in run.lines)
        if status == -signal.SIGKILL:
            done += 1
            hit[next((phase for phase in ("evaluating", "training") if phase in (run.lines or [""])[-1]), "other")] += 1
        elif outcome(killed) != outcome(whole):
            return f"{method}: DIFFERENT after {done} kills"
        else:
            # It ended before its kill: begin a new run, so that every kill hits an unfinished one.
            killed = root / f"{method}-killed-{done}"
    Run(method, folders, killed).finish()
    same = outcome(killed) == outcome(whole) and not (killed / "unfinished").exists()
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
