"""The script of the GPU measurements: its summary, and a rehearsal on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import gpu
from benchmarks.steps import FILE, Outcome
from harness.records import Loss
from tests.record_factory import make, speed

ROOT = Path(__file__).parents[2]


def script(*options, out):
    """Start the script, with `out` as its output folder."""
    environment = {**os.environ, "OUT": str(out), "PYTHON": sys.executable}
    command = [ROOT / "benchmarks" / "gpu.sh", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=out)


def run(first_loss):
    """Return the record of a run with 8 samples per forward pass."""
    return make("memvp").model_copy(update={"loss": Loss(first=first_loss, last=2.0), "micro_batch": 8})


def test_steps_are_ordered_by_value_and_the_run_comes_first():
    names = [step.name for step in gpu.steps_for("cuda", Path("data"))]
    assert names[:3] == ["run-eager-4", "run-eager-auto", "run-captured"]
    assert names[3:] == ["speed-128", "speed-256", "speed-profile", "run-quantised"]


def test_each_run_says_whether_its_steps_are_captured():
    """On a GPU, a run that says nothing captures its steps."""
    for step in gpu.steps_for("cuda", Path("data")):
        if step.name.startswith("run-") and "--quantize" not in step.command:
            asked = step.command[step.command.index("--set") + 1]
            assert asked == f"captured={str('eager' not in step.name).lower()}", step.name


def test_on_a_gpu_the_size_is_that_of_7b_and_in_a_rehearsal_it_is_tiny():
    for device, model in (("cuda", "7b"), ("cpu", "tiny")):
        for step in gpu.steps_for(device, Path("data")):
            assert step.command[step.command.index("--model") + 1] == model
            assert step.command[step.command.index("--device") + 1] == device


def test_an_unknown_step_is_rejected(capsys):
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--only", "run-eagre"])
    assert "--only run-eagre: the steps are run-eager-4, " in capsys.readouterr().err


def test_the_summary_says_how_far_losses_of_one_method_lie_apart():
    records = [run(first) for first in (4.0, 5.0)]
    outcomes = [Outcome(name, "done", records=[one]) for name, one in zip("ab", records, strict=True)]
    assert "The losses of memvp differ by at most 20.00%" in gpu.summary(outcomes)
    assert "The losses" not in gpu.summary(outcomes[:1])


def test_the_summary_has_a_row_for_every_run_and_every_timed_batch():
    outcomes = [
        Outcome("run-a", "done", records=[run(4.0)]),
        Outcome("speed-b", "failed", "exit status 1", records=[speed("memvp", 0.5, 0.25)]),
    ]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in gpu.summary(outcomes).splitlines()]
    assert ["speed-b", "failed", "0", "exit status 1"] in rows
    assert [row[-3:] for row in rows if row[:3] == ["run-a", "memvp", "completed"]] == [["8", "4.0000", "2.0000"]]
    assert [row[2:4] for row in rows if row[:2] == ["speed-b", "memvp"]] == [
        ["train", "0.5000"],
        ["inference", "0.2500"],
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the script is for bash")
def test_a_stopped_script_leaves_no_step_running(tmp_path):
    process = script("--device", "cpu", "--only", "run-eager-4", out=tmp_path)
    assert process.stdout is not None and "run-eager-4: about" in process.stdout.readline()
    # The line comes just before the step is started.
    while not (steps := psutil.Process(process.pid).children()):
        time.sleep(0.05)
    (step,) = steps
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not step.is_running()


@pytest.mark.slow
def test_the_rehearsal_measures_the_same_on_a_cpu(tmp_path):
    process = script("--device", "cpu", "--only", "run-eager-4,run-eager-auto,speed-profile", out=tmp_path)
    printed, _ = process.communicate(timeout=560)
    assert process.returncode == 0, printed
    eager, auto, profile = json.loads((tmp_path / FILE).read_text())
    assert [one["status"] for one in (eager, auto, profile)] == ["done"] * 3
    assert [one["micro_batch"] for one in (*eager["records"], *auto["records"])] == [1, 4]
    assert {phase for one in profile["records"] for phase in one["speed"]["phases"]} == {"train", "inference"}
    assert profile["profile"]["phases"].keys() == {"train", "inference"}
    assert "The losses of memvp differ by at most 0.0" in (tmp_path / gpu.SUMMARY).read_text()
