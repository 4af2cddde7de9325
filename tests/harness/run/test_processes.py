"""Several processes that make a run together: the steps and scores of one process, and what a killed one leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.records import Record, predictions_path, read_records, record_path
from tests import command_line
from tests.command_line import quick_run

ROOT = Path(__file__).parents[3]
NO_DROPOUT = ("--set", "memory_dropout=0", "--set", "adapter_dropout=0")
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "harness")
"""What `torchrun` runs. `accelerate launch --cpu` starts one process only, so it cannot be tested without a GPU."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Gloo is not tested on Windows")]


def launch(arguments: list[str], launcher: tuple[str, ...] = LAUNCHER) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *launcher, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def history(results: Path, method: str = "memvp") -> dict[str, Any]:
    (path,) = results.rglob(f"{method}/**/*.history.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_two_processes_make_the_run_of_one(mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path) -> None:
    records: list[Record] = []
    curves = []
    answers: list[list[tuple[Any, Any]]] = []
    for count in (1, 2):
        results = tmp_path / str(count)
        arguments = [*quick_run(small_llm, small_clip, mini_set, results), "--methods", "memvp", *NO_DROPOUT]
        # Nine is odd, so the processes have unequal shares.
        arguments[arguments.index("batch_size=4")] = "batch_size=9"
        arguments[arguments.index("--steps") + 1] = "6"
        if count == 1:
            assert command_line.call(*arguments, "--threads", "1").code == 0
        else:
            process = launch(arguments)
            out, _ = process.communicate(timeout=500)
            assert process.returncode == 0, out
            assert out.count("memvp seed 0: completed") == 1 and out.count("| MemVP") == 1
        (record,) = read_records(results)
        records.append(record)
        curves.append(history(results))
        rows = [json.loads(line) for line in predictions_path(record_path(record, results)).read_text().splitlines()]
        answers.append([(row["qid"], row["choice"]) for row in rows])
    one, two = records
    assert (one.environment.processes, two.environment.processes) == (1, 2)
    assert one.spec_hash == two.spec_hash and one.steps == two.steps == 6
    assert one.metrics == two.metrics
    assert answers[0] == answers[1] and len(dict(answers[1])) == len(answers[1]) == one.metrics["Avg"].n
    for mine, theirs in zip(curves[0]["points"], curves[1]["points"], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
        assert mine["learning_rate"] == theirs["learning_rate"]


def test_a_killed_process_ends_the_run_and_the_next_command_goes_on(
    mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    arguments = [
        *quick_run(small_llm, small_clip, mini_set, tmp_path),
        "--methods",
        "memvp",
        "--checkpoint-minutes",
        "0",
    ]
    arguments[arguments.index("--steps") + 1] = "60"
    process = launch(arguments)
    deadline = time.monotonic() + 300
    while not list(tmp_path.rglob("step-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children(recursive=True)
    follower = next(worker for worker in workers if worker.environ().get("RANK") == "1")
    follower.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode not in (0, None)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    (record,) = read_records(tmp_path)
    assert record.status in ("failed", "interrupted")
    # The same command in one process goes on from the checkpoint.
    done = command_line.call(*arguments)
    assert done.code == 0 and "memvp seed 0: resuming after optimiser step" in done.out
    (record,) = read_records(tmp_path)
    assert (record.status, record.steps) == ("completed", 60)
