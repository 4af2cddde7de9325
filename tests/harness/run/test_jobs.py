"""Runs side by side: the same results as in turn, and what a stopped or killed process leaves."""

import multiprocessing
import os
import re
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from harness.records import Record, read_records
from harness.run.messages import Message, ReceivedProgress
from tests import command_line
from tests.command_line import Done, files, quick_run

pytestmark = pytest.mark.slow

METHODS = ("--methods", "lavin,memvp,dehvf", "--set", "lavin.base_lr=1e30")
"""Two runs that complete, and one that fails."""


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, mini_set: Path, small_llm: Path, small_clip: Path
) -> dict[int, tuple[Done, Path]]:
    """The same sweep in turn and with two jobs."""
    found = {}
    for jobs in (1, 2):
        results = tmp_path_factory.mktemp("jobs") / "results"
        done = command_line.call(*quick_run(small_llm, small_clip, mini_set, results), *METHODS, "--jobs", jobs)
        found[jobs] = done, results
    return found


def test_jobs_give_the_same_adapters_and_predictions_as_runs_in_turn(swept: dict[int, tuple[Done, Path]]) -> None:
    in_turn, side_by_side = swept[1][1], swept[2][1]
    kept = {name for name in files(in_turn) if name.startswith("adapters/") or ".predictions." in name}
    assert len(kept) == 2 * 3
    assert {name: _hash(in_turn / name) for name in kept} == {name: _hash(side_by_side / name) for name in kept}


def test_jobs_give_the_same_records_as_runs_in_turn(swept: dict[int, tuple[Done, Path]]) -> None:
    def lasting(record: Record) -> dict[str, Any]:
        passing = {"created", "run_id", "times_s", "peak_memory_bytes"}
        return record.model_dump(exclude=passing)

    in_turn, side_by_side = (read_records(results) for _, results in swept.values())
    assert [record.status for record in in_turn] == ["completed", "failed", "completed"]
    assert [lasting(record) for record in side_by_side] == [lasting(record) for record in in_turn]


def test_the_longest_runs_are_begun_first(swept: dict[int, tuple[Done, Path]]) -> None:
    out = swept[2][0].out
    # LaVIN counts the fewest FLOPs on this backbone.
    ends = [out.index(f"{name} seed 0: completed") for name in ("memvp", "dehvf")]
    assert out.index("lavin seed 0: training: 0/3") > min(ends)


def test_a_failed_run_of_a_job_is_reported_and_the_others_go_on(swept: dict[int, tuple[Done, Path]]) -> None:
    done = swept[2][0]
    assert done.code == 1
    assert re.search(r"^lavin seed 0: failed: loss is (nan|inf) at step 3$", done.out, re.MULTILINE)
    assert "memvp seed 0: training: 3/3" in done.out and "dehvf seed 0: completed" in done.out
    assert "| MemVP" in done.out


def _hash(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


class Sweep:
    """A sweep of two jobs in a process group of its own, long enough to be stopped."""

    def __init__(self, arguments: list[str], seeds: str) -> None:
        arguments[arguments.index("--steps") + 1] = "100000"
        command = [*arguments, "--methods", "memvp", "--seeds", seeds, "--jobs", "2", "--log-seconds", "0"]
        self.process = command_line.fork(*command, own_group=True)

    def read_until(self, *texts: str) -> None:
        """Read the output until each text was in a line."""
        missing = set(texts)
        for line in self.process.stdout:
            missing -= {text for text in missing if text in line}
            if not missing:
                return
        pytest.fail(f"never printed: {missing}")

    def workers(self, results: Path) -> dict[int, int]:
        """The seeds of the runs that are being made, and the process that makes each."""
        found = {}
        for owner in results.glob("unfinished/*/*/*/*/owner.json"):
            seed, pid = re.findall(r"seed(\d+)", owner.parent.name), re.findall(r'"pid": (\d+)', owner.read_text())
            found[int(seed[0])] = int(pid[0])
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()  # where a test failed

    def end(self) -> str:
        """Read the rest of the output and wait for the end."""
        out, _ = self.process.communicate(timeout=120)
        return out


def endings(results: Path) -> dict[int, tuple[str, str | None]]:
    return {record.seed: (record.status, record.error) for record in read_records(results)}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_jobs_and_leaves_their_records(base: list[str], tmp_path: Path, signum: int) -> None:
    with Sweep(base, "0,1,2") as sweep:
        sweep.read_until("seed 0: training: 2/", "seed 1: training: 2/")
        workers = sweep.workers(tmp_path / "results")
        assert workers.keys() == {0, 1}
        if signum == signal.SIGINT:
            os.killpg(sweep.process.pid, signum)  # as a terminal does
        else:
            sweep.process.send_signal(signum)
        out = sweep.end()
    assert sweep.process.returncode == 128 + signum, out
    assert "the same command goes on" in out and "Traceback" not in out
    by = "the user" if signum == signal.SIGINT else "SIGTERM"
    assert endings(tmp_path / "results") == {seed: ("interrupted", f"interrupted by {by}") for seed in (0, 1)}
    assert not any(map(psutil.pid_exists, workers.values()))


def test_a_job_that_does_not_stop_in_time_is_a_failed_run(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an optimiser step that takes longer than a stopped process has."""
    base[base.index("--steps") + 1] = "100000"
    receive, advanced = ReceivedProgress.receive, set[int]()

    def stop_in_mid_step(self: ReceivedProgress, message: Message) -> None:
        receive(self, message)
        if message[0] == "advance":
            advanced.add(id(self))
        if len(advanced) == 2:
            advanced.clear()
            for worker in multiprocessing.active_children():
                os.kill(worker.pid or 0, signal.SIGSTOP)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ReceivedProgress, "receive", stop_in_mid_step)
    monkeypatch.setattr("harness.run.jobs.GRACE_S", 0.5)
    done = command_line.call(*base, "--methods", "memvp", "--seeds", "0,1", "--jobs", "2")
    assert done.code == 128 + signal.SIGTERM
    for status, error in endings(tmp_path / "results").values():
        assert status == "failed" and str(error).startswith("interrupted by SIGTERM, ") and "killed" in str(error)
    assert endings(tmp_path / "results").keys() == {0, 1}


def test_a_killed_job_is_a_failed_run_and_none_outlives_the_sweep(base: list[str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    with Sweep(base, "0,1,2") as sweep:
        sweep.read_until("seed 0: training: 2/", "seed 1: training: 2/")
        os.kill(sweep.workers(results)[1], signal.SIGKILL)
        sweep.read_until("seed 2: training: 2/")  # in a new process
        assert endings(results).keys() == {1}
        status, error = endings(results)[1]
        assert status == "failed" and "ended by SIGKILL" in str(error) and "--jobs" in str(error)

        workers = [psutil.Process(sweep.workers(results)[seed]) for seed in (0, 2)]
        workers[0].terminate()  # this one has time to say how far it came
        sweep.read_until("seed 0: interrupted: interrupted by SIGTERM")
        sweep.process.kill()
        sweep.end()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive
    by_seed = {seed: status for seed, (status, _) in endings(results).items()}
    assert by_seed == {0: "interrupted", 1: "failed", 2: "interrupted"}
