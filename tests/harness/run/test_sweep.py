"""Many runs from the command line: what is skipped, and what a failed, interrupted or killed run leaves."""

import shutil
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.records import read_records
from methods import get_method
from tests import command_line
from tests.command_line import Done, Run, files, quick_run


class Swept(NamedTuple):
    """A sweep over two seeds of one method: what it printed, its arguments and its results."""

    done: Done
    arguments: list[str]
    results: Path

    def copy(self, folder: Path) -> list[str]:
        """Copy the results into `folder`; return the arguments for a sweep that continues there."""
        results = shutil.copytree(self.results, folder / "results")
        return [*self.arguments[: self.arguments.index("--results")], "--results", str(results)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, mini_set: Path, small_llm: Path, small_clip: Path) -> Swept:
    results = tmp_path_factory.mktemp("swept") / "results"
    arguments = quick_run(small_llm, small_clip, mini_set, results)
    done = command_line.call(*arguments, "--methods", "memvp", "--seeds", "0,1")
    assert done.code == 0
    return Swept(done, arguments, results)


def test_a_sweep_shows_its_progress_and_the_table(swept: Swept) -> None:
    assert "memvp seed 1: training: 3/3 (100 %) loss" in swept.done.out
    assert "| MemVP" in swept.done.out and "n/a" in swept.done.out  # the table has rows with and without runs


def test_every_run_of_a_sweep_is_recorded(swept: Swept) -> None:
    records = read_records(swept.results)
    assert [(r.label, r.seed, r.status, r.steps, r.kind) for r in records] == [
        ("memvp", 0, "completed", 3, "train"),
        ("memvp", 1, "completed", 3, "train"),
    ]
    assert records[0].loss != records[1].loss
    own = [name for name in files(swept.results) if not name.startswith("samples/")]
    assert len(own) == 2 * 5  # a record, its predictions, its history and the adapter's two files


def test_recorded_runs_are_skipped(swept: Swept, call: Run, tmp_path: Path) -> None:
    again = call(*swept.copy(tmp_path), "--methods", "memvp", "--seeds", "0,1,2")
    assert again.code == 0 and again.out.count("already recorded") == 2
    assert "seed 2: training" in again.out and "seed 0: training" not in again.out
    assert read_records(tmp_path / "results")[:2] == read_records(swept.results)


def test_weights_that_take_long_to_read_are_announced(
    swept: Swept, call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*swept.copy(tmp_path), "--methods", "memvp", "--seeds", "0"]
    line = "small-llm-small-clip: reading 0 GiB of weights"
    assert line not in call(*arguments).out
    monkeypatch.setattr("harness.run.checks.SLOW_TO_READ", 0)
    assert line in call(*arguments).out


def test_a_recorded_run_can_be_repeated_and_gives_the_same(swept: Swept, call: Run, tmp_path: Path) -> None:
    forced = call(*swept.copy(tmp_path), "--methods", "memvp", "--seeds", "0", "--force")
    assert forced.code == 0 and "already recorded" not in forced.out
    before, repeated = read_records(swept.results)[0], read_records(tmp_path / "results")[0]
    assert repeated.created > before.created
    assert (repeated.metrics, repeated.loss) == (before.metrics, before.loss)


def test_a_bad_record_is_found_before_training(call: Run, base: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "results" / "records" / "bad.json"
    bad.parent.mkdir(parents=True)
    bad.write_text("{}")
    done = call(*base, "--methods", "memvp")
    assert done.code == 2 and "bad.json" in done.err and "training" not in done.out


def test_a_failed_run_is_recorded_and_the_others_go_on(call: Run, base: list[str], tmp_path: Path) -> None:
    done = call(*base, "--methods", "memvp,dehvf", "--set", "memvp.base_lr=1e30")
    assert done.code == 1
    dehvf, memvp = read_records(tmp_path / "results")
    assert (dehvf.label, dehvf.status) == ("dehvf", "completed")
    assert (memvp.status, memvp.failed_step, memvp.steps, memvp.metrics) == ("failed", 3, 2, {})
    assert memvp.error in ("loss is nan at step 3", "loss is inf at step 3")
    assert f"failed: memvp seed 0: {memvp.error}" in done.out
    names = {name for name in files(tmp_path / "results") if not name.startswith("unfinished/") and "memvp" in name}
    kept = (f"{memvp.spec_hash}.json", f"{memvp.spec_hash}.history.json")  # of the steps before it failed
    assert len(names) == 2 and all(name.endswith(kept) for name in names)
    assert not list((tmp_path / "results" / "unfinished").rglob("*.predictions.jsonl"))  # there are none

    again = call(*base, "--methods", "memvp,dehvf", "--set", "memvp.base_lr=1e30")
    assert again.code == 1  # a failed run does not count as recorded, so it is tried again
    assert again.out.count("already recorded") == 1 and "memvp seed 0: training" in again.out


def test_a_defect_of_one_method_is_recorded_and_the_others_go_on(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memvp = get_method("memvp")

    def break_down(*args: Any) -> None:
        raise RuntimeError("The size of tensor a must match\nand more")

    monkeypatch.setattr(memvp, "build_sequence", break_down)
    done = call(*base, "--methods", "memvp,dehvf")
    assert done.code == 1 and "Traceback" in done.err and "in break_down" in done.err
    status = {r.label: (r.status, r.error) for r in read_records(tmp_path / "results")}
    error = "RuntimeError: The size of tensor a must match"
    assert status == {"dehvf": ("completed", None), "memvp": ("failed", error)}


def test_an_interrupted_run_is_recorded_and_made_later(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("harness.run.phases.Training", interrupt)
        assert call(*base, "--methods", "memvp").code == 130
    (record,) = read_records(tmp_path / "results")
    assert (record.status, record.error, record.steps) == ("interrupted", "interrupted by the user", 0)
    assert call(*base, "--methods", "memvp").code == 0
    assert [r.status for r in read_records(tmp_path / "results")] == ["completed"]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(call: Run, base: list[str], tmp_path: Path) -> None:
    base[base.index("--steps") + 1] = "20"
    arguments = [*base, "--methods", "memvp", "--seeds", "0,1"]
    process = command_line.fork(*arguments)
    for line in process.stdout:
        if "seed 1: training" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.read()
    assert process.wait(timeout=60) == -signal.SIGKILL

    results = tmp_path / "results"
    (before,) = read_records(results)
    assert (before.seed, before.status) == (0, "completed")
    assert call("table", "--results", results, "--model", "small-llm-small-clip").code == 0
    done = call(*arguments)
    assert done.code == 0
    assert "seed 0: already recorded" in done.out and "seed 1: training" in done.out
    assert [(r.seed, r.status) for r in read_records(results)] == [(0, "completed"), (1, "completed")]
    assert read_records(results)[0] == before
    assert not [name for name in files(results) if Path(name).name.startswith(".") or name.endswith(".tmp")]


def test_steps_are_the_same_for_methods_with_other_batches(call: Run, base: list[str], tmp_path: Path) -> None:
    assert call(*base, "--methods", "memvp,dehvf", "--set", "dehvf.batch_size=5", "--limit", "10").code == 0
    dehvf, memvp = read_records(tmp_path / "results")
    assert (dehvf.steps, dehvf.epochs) == (3, 1.5)
    assert (memvp.steps, memvp.epochs) == (3, 1.0)
    assert memvp.times_s.inside is None and (dehvf.times_s.inside or 0) > 0
    assert dehvf.data.limit == 10 and dehvf.metrics["Avg"].n == 10


@pytest.mark.slow
def test_processes_that_share_a_results_folder_make_each_run_once(
    mini_set: Path, small_llm: Path, small_clip: Path, tmp_path: Path
) -> None:
    arguments = [*quick_run(small_llm, small_clip, mini_set, tmp_path), "--methods", "memvp", "--seeds", "0,1,2,3"]
    processes = [command_line.fork(*arguments) for _ in range(4)]
    while any(process.poll() is None for process in processes):
        read_records(tmp_path)  # fails on a record that is not whole
        time.sleep(0.2)
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert sum(output.count(": completed: ") for output in outputs) == 4
    assert [(r.seed, r.status) for r in read_records(tmp_path)] == [(seed, "completed") for seed in range(4)]
    assert not (tmp_path / "unfinished").exists()
