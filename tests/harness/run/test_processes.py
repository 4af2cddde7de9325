"""Several processes that make a run together: the steps and scores of one process, and what a killed one leaves."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.records import Record, predictions_path, read_records, record_path
from tests import command_line
from tests.command_line import quick_run
from tests.forked import call_in_two

ROOT = Path(__file__).parents[3]
NO_DROPOUT = ("--set", "memory_dropout=0", "--set", "adapter_dropout=0")
STEPS = 40


def documented(program: str, module: str) -> tuple[str, ...]:
    """Return the arguments of Python for the launcher that docs/many-machines.md gives, up to the command line."""
    text = (ROOT / "docs" / "many-machines.md").read_text()
    found = re.search(rf"^{program} (.*-m harness) run ", text, flags=re.MULTILINE)
    assert found is not None, f"the document has no command with {program}"
    return ("-m", module, *shlex.split(found[1]))


ACCELERATE = documented("accelerate launch", "accelerate.commands.launch")
TORCHRUN = documented("torchrun", "torch.distributed.run")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Gloo is not tested on Windows")]


def launch(arguments: list[str], launcher: tuple[str, ...]) -> "subprocess.Popen[str]":
    """Start a launcher in a process group of its own. It prints errors where it prints all else."""
    return subprocess.Popen(
        [sys.executable, *launcher, *arguments],
        cwd=ROOT,
        env=command_line.environment(),
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
        arguments += ["--eval-every", "3"]
        if count == 1:
            assert command_line.call(*arguments, "--threads", "1").code == 0
        else:
            process = launch([*arguments, "--device", "cpu"], ACCELERATE)
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
    assert (one.micro_batch, two.micro_batch) == (9, 5)
    assert one.spec_hash == two.spec_hash and one.steps == two.steps == 6
    assert one.metrics == two.metrics
    assert answers[0] == answers[1] and len(dict(answers[1])) == len(answers[1]) == one.metrics["Avg"].n
    assert curves[0]["validations"] == curves[1]["validations"] and len(curves[0]["validations"]) == 2
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
    arguments[arguments.index("--steps") + 1] = str(STEPS)
    process = launch(arguments, TORCHRUN)
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
    assert (record.status, record.steps) == ("completed", STEPS)


def stop_reading_at_step_5() -> None:
    """Give this process a standard output whose reader goes away after the fifth step."""
    _call_at_step_5(lambda: None)


def be_signalled_from_step_5() -> None:
    """Send this process SIGTERM again and again, from the fifth step until it has ended."""

    def signal_for_ever() -> None:
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.005)

    _call_at_step_5(signal_for_ever)


def _call_at_step_5(call: Callable[[], object]) -> None:
    """Read what this process prints, and call a function at the fifth step. Afterwards nobody reads it any more."""
    reading, writing = os.pipe()
    sys.stdout = os.fdopen(writing, "w", buffering=1)

    def read() -> None:
        with os.fdopen(reading) as lines:
            for line in lines:
                if f"training: 5/{STEPS}" in line:
                    call()
                    return

    threading.Thread(target=read, daemon=True).start()


def steps_when_stopped(results: Path, error: str, out: str) -> int:
    """Check that the run was stopped in training with a checkpoint of that moment; return the steps made until then."""
    (record,) = read_records(results)
    assert (record.status, record.error) == ("interrupted", error), out
    assert record.steps is not None and 5 <= record.steps < STEPS
    # The one after ten minutes is far away.
    assert [folder.name for folder in results.rglob("step-*")] == [f"step-{record.steps:08d}"]
    return record.steps


def test_output_that_nobody_reads_stops_both_processes_with_a_checkpoint(
    mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    arguments = [*quick_run(small_llm, small_clip, mini_set, tmp_path), "--methods", "memvp", "--log-seconds", "0"]
    arguments[arguments.index("--steps") + 1] = str(STEPS)
    code, out = call_in_two(arguments, tmp_path / "log", stop_reading_at_step_5)
    assert code == 128 + signal.SIGPIPE, out
    steps_when_stopped(tmp_path, "interrupted: nobody reads the output any more", out)


def test_signals_that_keep_coming_do_not_cut_off_the_record(
    mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    """A scheduler signals all processes, and so does a launcher that gets its signal or finds one of them ended."""
    arguments = [*quick_run(small_llm, small_clip, mini_set, tmp_path), "--methods", "memvp", "--log-seconds", "0"]
    arguments[arguments.index("--steps") + 1] = str(STEPS)
    code, out = call_in_two(arguments, tmp_path / "log", be_signalled_from_step_5)
    # The last of the signals may come when the run is over and Python ends.
    assert code in (128 + signal.SIGTERM, -signal.SIGTERM), out
    steps_when_stopped(tmp_path, "interrupted by SIGTERM", out)


def test_a_stop_keeps_a_checkpoint_of_its_moment_and_the_next_command_makes_the_same_run(
    mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    made: list[tuple[set[str], list[float]]] = []
    steps = 0
    for stops in (False, True):
        results = tmp_path / str(stops)
        arguments = [*quick_run(small_llm, small_clip, mini_set, results), "--methods", "memvp", "--threads", "1"]
        arguments[arguments.index("--steps") + 1] = str(STEPS)
        if stops:
            process = launch([*arguments, "--log-seconds", "0"], TORCHRUN)
            assert process.stdout is not None
            for line in process.stdout:
                if f"training: 5/{STEPS}" in line:
                    break
            # A scheduler signals all processes, and the launcher passes on its signal.
            everyone = psutil.Process(process.pid)
            for one in (*everyone.children(recursive=True), everyone):
                one.send_signal(signal.SIGTERM)
            out = process.stdout.read()
            assert process.wait(timeout=300) not in (0, None)
            steps = steps_when_stopped(results, "interrupted by SIGTERM", out)
        code, out = call_in_two(arguments, tmp_path / f"{stops}.log")
        assert code == 0, out
        assert not stops or f"memvp seed 0: resuming after optimiser step {steps}" in out
        (record,) = read_records(results)
        kept = [predictions_path(record_path(record, results)), *results.rglob("adapters/**/*.safetensors")]
        assert len(kept) == 2
        made.append(
            ({sha256(file.read_bytes()).hexdigest() for file in kept}, [p["loss"] for p in history(results)["points"]])
        )
    assert made[0] == made[1]
