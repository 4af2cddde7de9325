"""The script of the GPU measurements: its summary, and a rehearsal on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from benchmarks import gpu, steps
from benchmarks.steps import FILE, LOG, Outcome, Step
from harness.backbone.loader import tokenizer_of
from harness.config.presets import resolve_spec
from harness.config.recipes import train_recipe
from harness.cost.timing import BASELINE
from harness.data.mini.build import build_mini
from harness.data.prompts import tokenize_example
from harness.records import Loss
from harness.tasks.contract import DataOptions
from harness.tasks.scienceqa import ScienceQATask
from methods import registry
from tests.command_line import call
from tests.record_factory import make, speed

ROOT = Path(__file__).parents[2]


def script(*options, out, python=sys.executable):
    """Start the script in `out`, which is also its output folder."""
    environment = {**os.environ, "OUT": str(out), "PYTHON": str(python)}
    command = [ROOT / "benchmarks" / "gpu.sh", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=out)


def run(first_loss):
    """Return the record of a run with 8 samples per forward pass."""
    return make("memvp").model_copy(update={"loss": Loss(first=first_loss, last=2.0), "micro_batch": 8})


def test_steps_are_ordered_by_value_and_the_run_comes_first():
    names = [step.name for step in gpu.steps_for("cuda", Path("data"))]
    assert names[:4] == ["run-eager-4", "run-eager-auto", "run-captured", "speed-whole-step"]
    assert names[4:] == ["speed-128", "speed-128-others", "speed-256", "speed-256-others", "run-quantised"]
    assert sum(step.estimate_s for step in gpu.steps_for("cuda", Path("data"))[:4]) < 0.96 * 540  # the default budget


def test_the_default_problems_are_as_long_as_a_captured_step(tmp_path):
    build_mini(tmp_path, sizes=gpu.SMALL_WORLD)
    gpu.lengthen(tmp_path / "problems.json")
    spec = resolve_spec("7b")
    recipe = train_recipe("memvp", spec.recipe, "scienceqa")
    tokenizer = tokenizer_of(spec, "random")
    lengths = [
        len(tokenize_example(tokenizer, example.prompt, example.answer, recipe.max_length).input_ids)
        for example in ScienceQATask(DataOptions(root=tmp_path)).train_examples(recipe)
    ]
    # So the longest of 32, to which a batch is padded, is above 128.
    assert max(lengths) <= gpu.LONGEST and sum(length > gpu.LONGEST - 64 for length in lengths) > len(lengths) / 2


def test_the_summary_compares_the_captured_steps_of_run_with_those_of_speed():
    def timed(seconds):
        return run(4.0).model_copy(
            update={"times_s": run(4.0).times_s.model_copy(update={"train_step_median": seconds})}
        )

    outcomes = [
        Outcome("run-eager-4", "done", records=[timed(4.0)]),
        Outcome("run-captured", "done", records=[timed(1.0)]),
        Outcome("speed-whole-step", "done", records=[speed("memvp", 0.8, 0.25)]),
    ]
    text = gpu.summary(outcomes)
    assert "memvp: a captured step of `run` is 4.00 times as fast as 8 passes of 4." in text
    assert "memvp: a captured step of `run` takes 1.250 times as long as in `speed`" in text


def test_methods_that_were_never_compiled_cannot_take_the_times_of_the_pair_with_them():
    times = {step.name: step.command for step in gpu.steps_for("cuda", Path("data")) if "speed-" in step.name}
    methods = {name: command[command.index("--methods") + 1].split(",") for name, command in times.items()}
    assert methods["speed-128"] == methods["speed-256"] == ["memvp", "dehvf"]
    assert methods["speed-128-others"] == methods["speed-256-others"]
    assert {"memvp", "dehvf", *methods["speed-128-others"]} == set(registry())
    assert BASELINE.method in methods["speed-128-others"]


def test_each_run_says_whether_its_steps_are_captured():
    """On a GPU, a run that says nothing captures its steps."""
    for step in gpu.steps_for("cuda", Path("data")):
        if step.name.startswith("run-") and "--quantize" not in step.command:
            assert f"captured={str('eager' not in step.name).lower()}" in step.command, step.name


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


def test_the_summary_of_the_steps_so_far_is_there_where_a_stop_ends_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    stop = [sys.executable, "-c", "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"]
    good = [sys.executable, "-c", ""]
    todo = [Step("good", 20.0, good), Step("stop", 20.0, stop), Step("never", 20.0, good)]
    assert gpu.measure(todo, 120.0) == 128 + signal.SIGTERM
    text = (tmp_path / gpu.SUMMARY).read_text()
    assert "good | done" in " ".join(text.split()) and "together with all steps" in text and "never" not in text


def test_data_are_looked_for_in_the_folder_of_the_caller(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert gpu.main(["--list", "--data-root", "data"]) == 0
    assert f"--data-root {tmp_path.resolve() / 'data'} " in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="the script is for bash")
def test_wheels_are_looked_for_in_the_folder_of_the_caller(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "some.whl").touch()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nif [ "$2" = pip ]; then for one; do last=$one; done; ls "$last"; else pwd; fi\n')
    python.chmod(0o755)
    process = script("--wheels", "wheels", "--list", out=tmp_path, python=python)
    printed, _ = process.communicate(timeout=60)
    assert printed.splitlines() == ["wheels/some.whl", str(tmp_path.resolve())] and process.returncode == 0


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


class InThisProcess:
    """Stands in for a process of the command line, so that its imports are made once."""

    def __init__(self, command, *, stdout, **options):
        assert command[:3] == [sys.executable, "-m", "harness"]
        ended = call(*command[3:])
        self.code = ended.code
        stdout.write(ended.out + ended.err)

    def wait(self, timeout=None):
        return self.code

    poll = wait


@pytest.mark.slow
def test_the_rehearsal_measures_the_same_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(steps, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": InThisProcess}))
    assert gpu.main(["--device", "cpu", "--budget", "3000"]) == 0, (tmp_path / LOG).read_text()
    found = {one["name"]: one for one in json.loads((tmp_path / FILE).read_text())}
    skipped = {name: one["reason"] for name, one in found.items() if one["status"] != "done"}
    assert skipped.pop("run-captured") == "CUDA graphs need a GPU"
    assert skipped.keys() <= {"run-quantised"}  # bitsandbytes is an extra
    eager, auto, profile = (found[name] for name in ("run-eager-4", "run-eager-auto", "speed-whole-step"))
    assert [one["micro_batch"] for one in (*eager["records"], *auto["records"])] == [1, 4]
    assert {phase for one in profile["records"] for phase in one["speed"]["phases"]} == {"train", "inference"}
    assert profile["profile"]["phases"].keys() == {"train", "inference"}
    assert "The losses of memvp differ by at most 0.0" in (tmp_path / gpu.SUMMARY).read_text()
