"""Runs of the real command line that are stopped or killed, and then made again."""

import os
import random
import shutil
import signal
from hashlib import sha256
from pathlib import Path

import pytest

from harness.records import History, Record, predictions_path, read_history, read_records, record_path
from tests import command_line
from tests.command_line import Done, quick_run
from tests.warm import WarmProcess

pytestmark = pytest.mark.slow

STEPS = 12
Whole = tuple[Record, dict[str, str], History]
OFTEN = ("--log-seconds", "0", "--checkpoint-minutes")
"""Options for a line of output after every step; the time between checkpoints follows."""


def start(arguments: list[str], own_group: bool = False, checkpoint_minutes: str = "0") -> WarmProcess:
    """Start the command line with a line of output and, unless told otherwise, a checkpoint after every step."""
    return command_line.fork(*arguments, *OFTEN, checkpoint_minutes, own_group=own_group)


def make_here(arguments: list[str]) -> Done:
    """Run the command line to its end, in this process and with as many threads as in those that `start` starts."""
    return command_line.call(*arguments, *OFTEN, "0", "--threads", "1")


def finish(process: WarmProcess) -> str:
    out = process.stdout.read()
    process.wait(timeout=120)
    return out


def stop_at(process: WarmProcess, text: str, signum: int) -> None:
    """Read the output until `text` is in a line, then send the signal."""
    for line in process.stdout:
        if text in line:
            process.send_signal(signum)
            return
    pytest.fail(f"the run never printed {text!r}")


def arguments_of(results: Path, mini_set: Path, small_llm: Path, small_clip: Path) -> list[str]:
    arguments = quick_run(small_llm, small_clip, mini_set, results)
    arguments[arguments.index("--steps") + 1] = str(STEPS)
    arguments += ["--set", "eval_batch_size=3", "--eval-every", "4"]
    return [*arguments, "--methods", "memvp"]


def made(results: Path) -> Whole:
    """The record of the one run, the hashes of its predictions and its adapter, and its history."""
    (record,) = read_records(results)
    path = record_path(record, results)
    kept = [predictions_path(path), *sorted((results / "adapters").rglob("*.*"))]
    assert len(kept) == 3
    history = read_history(path)
    assert history is not None and len(history.validations) == STEPS // 4
    return record, {file.name: sha256(file.read_bytes()).hexdigest() for file in kept}, history


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, mini_set: Path, small_llm: Path, small_clip: Path) -> Whole:
    """The run as it is made without any interruption."""
    results = tmp_path_factory.mktemp("whole") / "results"
    done = make_here(arguments_of(results, mini_set, small_llm, small_clip))
    assert done.code == 0, done
    return made(results)


def check_same(results: Path, whole: Whole) -> None:
    record, hashes, history = made(results)
    assert hashes == whole[1]
    assert (record.status, record.metrics, record.loss) == ("completed", whole[0].metrics, whole[0].loss)
    expected = whole[2]
    assert (history.steps, history.validations) == (STEPS, expected.validations)
    assert [(p.step, p.loss, p.learning_rate) for p in history.points] == [
        (p.step, p.loss, p.learning_rate) for p in expected.points
    ]
    assert (record.steps, record.epochs, record.truncated) == (STEPS, whole[0].epochs, whole[0].truncated)
    assert not (results / "unfinished").exists()


@pytest.mark.parametrize("checkpoint_minutes", ["0", "60"])
def test_a_stopped_run_is_recorded_and_goes_on_to_the_same_end(
    checkpoint_minutes: str,
    whole: Whole,
    mini_set: Path,
    small_llm: Path,
    small_clip: Path,
    tmp_path: Path,
) -> None:
    arguments = arguments_of(tmp_path, mini_set, small_llm, small_clip)
    process = start(arguments, checkpoint_minutes=checkpoint_minutes)
    stop_at(process, f"training: 5/{STEPS}", signal.SIGTERM)
    out = finish(process)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command goes on" in out and "Traceback" not in out
    (record,) = read_records(tmp_path)
    assert record.status == "interrupted" and record.steps is not None and record.steps >= 5
    assert record.error == "interrupted by SIGTERM"

    again = make_here(arguments)
    assert again.code == 0 and "resuming after optimiser step" in again.out
    check_same(tmp_path, whole)


@pytest.mark.parametrize(("signum", "by"), [(signal.SIGHUP, "SIGHUP"), (signal.SIGINT, "the user")])
def test_every_signal_that_ends_a_run_leaves_a_record(
    signum: signal.Signals, by: str, mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    process = start(arguments_of(tmp_path, mini_set, small_llm, small_clip))
    stop_at(process, f"training: 1/{STEPS}", signum)
    finish(process)
    assert process.returncode == 128 + signum
    (record,) = read_records(tmp_path)
    assert (record.status, record.error) == ("interrupted", f"interrupted by {by}")


def test_a_run_whose_output_nobody_reads_is_recorded(
    mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    arguments = arguments_of(tmp_path, mini_set, small_llm, small_clip)
    process = start(arguments, checkpoint_minutes="60")
    for line in process.stdout:
        if f"training: 2/{STEPS}" in line:
            process.stdout.close()
            break
    assert process.wait(timeout=120) == 128 + signal.SIGPIPE
    (record,) = read_records(tmp_path)
    assert record.status == "interrupted" and "nobody reads the output" in str(record.error)
    assert list(tmp_path.rglob("checkpoints/step-*"))


def test_workers_change_no_byte_and_do_not_survive_a_killed_run(
    whole: tuple[Record, dict[str, str]], mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    arguments = [*arguments_of(tmp_path, mini_set, small_llm, small_clip), "--workers", "2"]
    process = start(arguments)
    stop_at(process, f"training: 4/{STEPS}", signal.SIGKILL)
    # Workers have inherited the output, so it ends with the last of them.
    finish(process)
    assert process.returncode == -signal.SIGKILL

    again = make_here(arguments)
    assert again.code == 0 and "resuming after optimiser step" in again.out and "Traceback" not in again.out + again.err
    check_same(tmp_path, whole)


@pytest.mark.parametrize("phase", [f"training: 3/{STEPS}", "evaluating: 3/12"])
def test_a_signal_to_a_run_and_its_workers_is_an_interruption(
    phase: str, mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    arguments = [*arguments_of(tmp_path, mini_set, small_llm, small_clip), "--workers", "2"]
    process = start(arguments, own_group=True)
    for line in process.stdout:
        if phase in line:
            os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does it
            break
    out = finish(process)
    assert process.returncode == 128 + signal.SIGTERM, out
    assert "the same command goes on" in out and "Traceback" not in out and "DataLoader" not in out
    (record,) = read_records(tmp_path)
    assert (record.status, record.error) == ("interrupted", "interrupted by SIGTERM")


def test_an_image_that_breaks_in_mid_run_fails_the_run_in_one_line(
    mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(mini_set, data)
    process = start([*arguments_of(tmp_path / "results", data, small_llm, small_clip), "--workers", "2"])
    for line in process.stdout:
        if f"training: 1/{STEPS}" in line:
            for image in (data / "images" / "test").rglob("*.png"):
                image.write_bytes(b"no image")
            break
    out = finish(process)
    assert process.returncode == 1 and "Traceback" not in out
    (record,) = read_records(tmp_path / "results")
    assert record.status == "failed" and "cannot identify it as PNG or JPEG" in str(record.error)


def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(
    whole: Whole, mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    arguments = arguments_of(tmp_path, mini_set, small_llm, small_clip)
    moments = random.Random(0)
    for text in (f"training: {moments.randint(1, 4)}/{STEPS}", f"training: {moments.randint(6, STEPS)}/{STEPS}"):
        process = start(arguments)
        stop_at(process, text, signal.SIGKILL)
        finish(process)
        assert process.returncode == -signal.SIGKILL
    for done in (3, 9):  # of twelve problems
        process = start(arguments)
        stop_at(process, f"evaluating: {done}/12", signal.SIGKILL)
        finish(process)
    process = start(arguments)
    out = finish(process)
    assert process.returncode == 0 and "training is finished" in out
    check_same(tmp_path, whole)
