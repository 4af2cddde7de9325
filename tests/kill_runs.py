"""Kill runs of every method at random moments, finish them, and compare them with runs in one go.

For each method, one run is made without interruption. Another one with the same spec is started again and again and
killed by SIGKILL after a random time, which may fall into loading, training, writing a checkpoint, evaluating or
scoring. The last start is left to finish. Both must have the same adapter, the same predictions and the same metrics.

    python -m tests.kill_runs --kills 10 --methods memvp,dehvf
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from harness.records import predictions_path, read_records, record_path
from methods import registry
from tests.command_line import quick_run
from tests.folders import save_clip, save_llm, save_mini

ROOT = Path(__file__).parents[1]
STEPS = 40


@dataclass(frozen=True)
class Folders:
    """The small data set and backbone of the runs."""

    llm: Path
    clip: Path
    data: Path


def start(method: str, folders: Folders, results: Path) -> subprocess.Popen[bytes]:
    """Start a run with a checkpoint after every optimiser step and four batches in evaluation."""
    arguments = quick_run(folders.llm, folders.clip, folders.data, results)
    arguments[arguments.index("--steps") + 1] = str(STEPS)
    arguments += ["--methods", method, "--checkpoint-minutes", "0", "--set", "eval_batch_size=3"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


def finish(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a run and return how long it took, in seconds."""
    begun = time.monotonic()
    out, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"a run ended with status {process.returncode}:\n{out.decode(errors='replace')}")
    return time.monotonic() - begun


def outcome(results: Path) -> tuple[object, ...]:
    """Return what two runs with the same spec must share: the metrics, and the hashes of predictions and adapter."""
    (record,) = read_records(results)
    files = [predictions_path(record_path(record, results)), *sorted((results / "adapters").rglob("*.*"))]
    hashes = tuple((file.name, sha256(file.read_bytes()).hexdigest()) for file in files)
    return record.status, record.metrics, record.loss, record.steps, record.truncated, hashes


def kill_and_compare(method: str, kills: int, folders: Folders, root: Path, moments: random.Random) -> str:
    """Return a line about one method."""
    whole, killed = root / f"{method}-whole", root / f"{method}-killed"
    seconds = finish(start(method, folders, whole))
    done, resumed = 0, 0
    while done < kills:
        process = start(method, folders, killed)
        try:
            process.wait(timeout=moments.uniform(0.6 * seconds, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            done += 1
        out, _ = process.communicate()
        resumed += b"resuming after" in out or b"training is finished" in out
        if process.returncode == 0:
            # It ended before its kill: begin a new run, so that every kill hits an unfinished one.
            if outcome(killed) != outcome(whole):
                return f"{method}: DIFFERENT after {done} kills"
            killed = root / f"{method}-killed-{done}"
    finish(start(method, folders, killed))
    same = outcome(killed) == outcome(whole) and not (killed / "unfinished").exists()
    return f"{method}: {'same' if same else 'DIFFERENT'} after {done} kills, {resumed} starts went on from earlier work"


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
