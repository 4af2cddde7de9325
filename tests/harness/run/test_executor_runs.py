"""Runs that Ray and submitit make on this machine: the same as in turn, and nothing lost when a worker is killed."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from harness.records import predictions_path, read_records, record_path
from tests import command_line
from tests.harness.run.executors import EXECUTORS, NAMED, NEEDS_RAY, NEEDS_SUBMITIT
from tests.warm import WarmProcess

RAY_FAILED = re.compile(r"--executor ray: .+; correct RAY_ADDRESS, or start the cluster$", re.MULTILINE)
"""What is printed where Ray itself cannot be started. All else that the harness refuses fails a test."""


def arguments(llm: Path, clip: Path, data: Path, results: Path) -> list[str]:
    """A sweep of two runs, long enough to be stopped in the middle, with a checkpoint after every step."""
    found = command_line.quick_run(llm, clip, data, results)
    found[found.index("--steps") + 1] = "60"
    return [*found, "--methods", "memvp", "--seeds", "0,1", "--checkpoint-minutes", "0", *NAMED]


@pytest.fixture(scope="module")
def in_turn(small_llm: Path, small_clip: Path, mini_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the sweep, made in turn."""
    results = tmp_path_factory.mktemp("in-turn") / "results"
    assert command_line.call(*arguments(small_llm, small_clip, mini_set, results), "--jobs", "1").code == 0
    return results


def outcome(results: Path) -> list[tuple[object, ...]]:
    """What two sweeps must share: the runs with their metrics, predictions and adapters."""
    found: list[tuple[object, ...]] = []
    for record in read_records(results):
        path = record_path(record, results)
        adapter = results / "adapters" / path.relative_to(results / "records").with_suffix("")
        parts = [predictions_path(path), *sorted(adapter.iterdir())]
        hashes = [sha256(file.read_bytes()).hexdigest() for file in parts]
        found.append((record.spec_hash, record.status, record.metrics, record.loss, record.steps, *hashes))
    return found


def owner(results: Path, seed: int) -> int:
    """The process that makes the run of a seed."""
    (file,) = results.glob(f"unfinished/*/*/*/seed{seed}-*/owner.json")
    return int(re.findall(r'"pid": (\d+)', file.read_text())[0])


@contextmanager
def started(*command: str) -> Iterator[WarmProcess]:
    """The command line in a process of its own."""
    process = command_line.fork(*command)
    try:
        yield process
    finally:
        process.kill()


def wait_for(condition: Callable[[], bool], process: WarmProcess) -> None:
    while not condition():
        if process.poll() is not None:
            out = process.communicate()[0]
            if process.returncode == 2 and RAY_FAILED.search(out):
                pytest.skip(f"Ray's own processes do not start here in the time that Ray gives them: {out.strip()}")
            raise AssertionError(out)
        time.sleep(0.01)


def has_checkpoint(results: Path, seed: int) -> bool:
    return any(results.glob(f"unfinished/*/*/*/seed{seed}-*/checkpoints/step-*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("executor", "force"),
    [pytest.param("ray", True, marks=NEEDS_RAY), pytest.param("submitit", False, marks=NEEDS_SUBMITIT)],
)
def test_a_killed_worker_loses_nothing_and_repeats_nothing(
    executor: str, force: bool, in_turn: Path, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    if force:
        assert command_line.call("results", "merge", in_turn, "--results", results).code == 0
    before = {record.seed: record.created for record in read_records(results)}
    asked = arguments(small_llm, small_clip, mini_set, results)
    with started(*asked, "--executor", executor, "--jobs", "2", *(("--force",) if force else ())) as process:
        wait_for(lambda: has_checkpoint(results, 0), process)
        os.kill(owner(results, 0), signal.SIGKILL)
        out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    assert outcome(results) == outcome(in_turn)
    assert all(record.created != before.get(record.seed) for record in read_records(results))
    assert not (results / "unfinished").exists()
    # One line for each run: none was made a second time after it had been recorded.
    assert sorted(re.findall(r"^memvp seed (\d): completed", out, re.MULTILINE)) == ["0", "1"], out
    assert len(re.findall(r"^memvp seed 0: .*; submitting it again$", out, re.MULTILINE)) == 1, out
    assert re.search(r"memvp seed 0: resum", out) and re.search(r"memvp seed 0: training: \d+/60", out), out


def is_training(results: Path, seed: int) -> bool:
    """Whether the process of a run has made an optimiser step."""
    said = [file.read_text() for file in results.glob(f"unfinished/*/*/*/seed{seed}-*/messages.jsonl")]
    return bool(said) and '"advance"' in said[0].partition('"training"')[2]


@NEEDS_SUBMITIT
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_whose_time_is_over_goes_on_from_its_last_step(
    in_turn: Path, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    asked = [*arguments(small_llm, small_clip, mini_set, results), "--seeds", "0", "--checkpoint-minutes", "1000"]
    with started(*asked, "--executor", "submitit") as process:
        wait_for(lambda: is_training(results, 0), process)
        os.kill(owner(results, 0), signal.SIGUSR2)  # as Slurm does before the time is over
        out, _ = process.communicate(timeout=800)
    assert process.returncode == 0, out
    assert re.search(r"memvp seed 0: resuming after optimiser step \d+", out), out
    assert outcome(results) == outcome(in_turn)[:1]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_stopped_sweep_cancels_its_jobs_and_goes_on(
    executor: str, in_turn: Path, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    asked = [*arguments(small_llm, small_clip, mini_set, results), "--seeds", "0"]
    with started(*asked, "--executor", executor) as process:
        wait_for(lambda: has_checkpoint(results, 0), process)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM and "goes on from the last checkpoint" in out, out
    assert "Traceback" not in out
    by = {"ray": "the user", "submitit": "SIGTERM"}[executor]  # Ray raises KeyboardInterrupt
    assert [(record.status, record.error) for record in read_records(results)] == [
        ("interrupted", f"interrupted by {by}")
    ]
    assert has_checkpoint(results, 0)
    done = command_line.call(*asked, "--jobs", "1")
    assert done.code == 0 and "memvp seed 0: resum" in done.out
    assert outcome(results) == outcome(in_turn)[:1]
