"""Runs that Ray and submitit make on this machine: the same as in turn, and nothing lost when a worker is killed."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness import typed
from harness.errors import UserError
from harness.records import predictions_path, read_records, record_path
from harness.run import attempt as attempts
from harness.run.attempt import Attempt, Wanted, attempt
from harness.run.executor import TRIES, LostError, run_on_executor
from harness.run.messages import BEGIN, MessageFile, ReceivedProgress, SentProgress
from harness.run.progress import SweepProgress
from harness.run.unit import Unit
from harness.run.workspace import Workspace
from tests import command_line
from tests.command_line import Run

ROOT = Path(__file__).parents[3]
NAMED = ("--device", "cpu", "--threads", "1")
EXTRAS = {"ray": "ray", "submitit": "slurm"}


def needs(executor: str) -> None:
    """Skip the test without the executor's package."""
    if importlib.util.find_spec(executor) is None:
        pytest.skip(f'{executor} is not installed; run `pip install -e ".[{EXTRAS[executor]}]"`')


# ---- whole runs -----------------------------------------------------------------------------------------------------


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
def started(*command: str) -> Iterator["subprocess.Popen[str]"]:
    """The command line in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    while not condition():
        if process.poll() is not None:
            out = process.communicate()[0]
            if process.returncode == 2 and "--executor ray: " in out:
                pytest.skip(f"Ray's own processes do not start here in the time that Ray gives them: {out.strip()}")
            raise AssertionError(out)
        time.sleep(0.01)


def has_checkpoint(results: Path, seed: int) -> bool:
    return any(results.glob(f"unfinished/*/*/*/seed{seed}-*/checkpoints/step-*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("executor", "force"), [("ray", True), ("submitit", False)])
def test_a_killed_worker_loses_nothing_and_repeats_nothing(
    executor: str, force: bool, in_turn: Path, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    needs(executor)
    results = tmp_path / "results"
    if force:
        assert command_line.call("results", "merge", in_turn, "--results", results).code == 0
    before = {record.seed: record.created for record in read_records(results)}
    asked = arguments(small_llm, small_clip, mini_set, results)
    with started(*asked, "--executor", executor, *(("--force",) if force else ())) as process:
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


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("executor", ["ray", "submitit"])
def test_a_stopped_sweep_cancels_its_jobs_and_goes_on(
    executor: str, in_turn: Path, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    needs(executor)
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


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", EXTRAS)
@pytest.mark.parametrize("options", [(), ("--dry-run", "--device", "cpu")])
def test_a_missing_package_is_found_first(
    executor: str,
    options: tuple[str, ...],
    call: Run,
    base: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == executor else real(module))
    done = call(*base, "--methods", "oracle", "--executor", executor, *options)
    line = f'--executor {executor}: the package is not installed; run `pip install -e ".[{EXTRAS[executor]}]"`'
    assert done.code == 2 and line in done.err + done.out and not (tmp_path / "results" / "records").exists()
    assert options or len(done.err.splitlines()) == 1


@pytest.mark.parametrize("executor", EXTRAS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "--device auto: other machines make the runs and may differ; give cpu or cuda"),
        ("--device cuda:1", "--device cuda:1: other machines make the runs"),
        ("--device cpu", "--executor EXECUTOR: needs the number of cores of a run; give --threads N"),
        ("--device cuda --weights random", "--weights random: a GPU draws others than this machine"),
    ],
)
def test_nothing_is_left_to_the_machine_of_a_run(
    executor: str, options: str, message: str, call: Run, base: list[str]
) -> None:
    needs(executor)
    done = call(*base, "--methods", "memvp", "--executor", executor, *options.split())
    assert done.code == 2 and message.replace("EXECUTOR", executor) in done.err
    assert len(done.err.splitlines()) == 1


def test_an_unknown_executor_is_refused(call: Run, base: list[str]) -> None:
    done = call(*base, "--executor", "dask")
    assert done.code == 2 and "'dask' is not one of 'local', 'ray', 'submitit'" in done.err


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("timeout_min", "--submitit timeout_min: is not KEY=VALUE"),
        ("timeout_min=long", '--submitit: Parameter "timeout_min" expected type'),
        ("slurm_nothing=1", "--submitit: Unknown argument 'nothing' for executor 'slurm'"),
    ],
)
def test_parameters_of_submitit_are_checked(parameters: str, message: str, call: Run, base: list[str]) -> None:
    needs("submitit")
    done = call(*base, "--methods", "memvp", "--executor", "submitit", *NAMED, "--submitit", parameters)
    assert done.code == 2 and message in done.err and len(done.err.splitlines()) == 1


def test_parameters_of_submitit_need_submitit(call: Run, base: list[str]) -> None:
    done = call(*base, "--submitit", "timeout_min=1")
    assert done.code == 2 and "--submitit: is for --executor submitit" in done.err


def test_parameters_keep_their_types_and_commas() -> None:
    text = "timeout_min=600,mem_gb=1.5,slurm_partition=gpu,debug,slurm_exclusive=true"
    assert typed.parameters("--submitit", text) == {
        "timeout_min": 600,
        "mem_gb": 1.5,
        "slurm_partition": "gpu,debug",
        "slurm_exclusive": True,
    }


# ---- following and beginning again ----------------------------------------------------------------------------------


class ScriptedJob:
    """A job that has ended, with a result that was decided before."""

    def __init__(self, end: Attempt | UserError | LostError) -> None:
        self.end, self.cancelled = end, False

    def done(self) -> bool:
        return True

    def result(self) -> Attempt | UserError:
        if isinstance(self.end, LostError):
            raise self.end
        return self.end

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class ScriptedExecutor:
    """An executor whose jobs end as a list says."""

    ends: list[Attempt | UserError | LostError]
    machine: Any = None
    threads: int = 1
    jobs: int | None = None
    submitted: list[Unit] = field(default_factory=list)

    def open(self, say: Callable[[str], None]) -> None: ...

    def submit(self, unit: Unit) -> ScriptedJob:
        self.submitted.append(unit)
        return ScriptedJob(self.ends.pop(0))

    def close(self) -> None: ...


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ScriptedExecutor, list[Attempt]]]:
    """Make one run on an executor whose jobs end as given."""
    monkeypatch.setattr("harness.run.executor.POLL_S", 0)

    def made(*ends: Attempt | UserError | LostError) -> tuple[ScriptedExecutor, list[Attempt]]:
        executor, reported = ScriptedExecutor(list(ends)), list[Attempt]()
        failure = SimpleNamespace(status="failed", error="", metrics={})
        setup: Any = SimpleNamespace(
            results_dir=tmp_path,
            workspace=lambda plan: Workspace(tmp_path, Path("a", "b", "c", "seed0"), "0" * 12),
        )
        monkeypatch.setattr(
            attempts, "record_failure", lambda setup, plan, error: SimpleNamespace(**{**vars(failure), "error": error})
        )
        plan: Any = SimpleNamespace(name="a run")
        with SweepProgress(Console(quiet=True), 1) as shown:
            run_on_executor(
                executor, [Wanted(plan)], lambda: setup, setup, shown, lambda plan, result: reported.append(result)
            )
        return executor, reported

    return made


DONE = Attempt(record=SimpleNamespace(), line="completed")  # type: ignore[arg-type]  # nobody reads the record


def test_a_lost_run_is_begun_again(follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]]) -> None:
    executor, reported = follow(LostError("gone", again=True), DONE)
    assert reported == [DONE] and executor.submitted[0] == executor.submitted[1]


def test_a_run_that_is_lost_each_time_has_failed(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    executor, reported = follow(*[LostError("gone", again=True)] * TRIES)
    assert len(executor.submitted) == TRIES and [result.line for result in reported] == ["failed: gone"]


def test_a_run_whose_job_was_cancelled_is_not_begun_again(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    executor, reported = follow(LostError("cancelled", again=False))
    assert len(executor.submitted) == 1 and reported[0].line == "failed: cancelled"


def test_a_run_that_another_process_makes_is_asked_for_again(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    executor, reported = follow(Attempt(None, "being made by another process"), DONE)
    assert [unit.wanted.wait for unit in executor.submitted] == [False, True] and reported[-1] == DONE


def test_a_mistake_of_the_user_ends_the_sweep(
    follow: Callable[..., tuple[ScriptedExecutor, list[Attempt]]],
) -> None:
    with pytest.raises(UserError, match="no data there"):
        follow(UserError("no data there"))


def test_a_second_try_sees_that_the_first_has_recorded_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
    work = Workspace(tmp_path, Path("a", "b", "c", "seed0"), "0" * 12)
    setup: Any = SimpleNamespace(workspace=lambda plan: work)
    monkeypatch.setattr(attempts, "make_run", lambda setup, plan, progress: pytest.fail("made again"))
    monkeypatch.setattr(attempts, "completed", lambda setup, work: SimpleNamespace(created=new, run_id="its id"))
    plan: Any = SimpleNamespace(name="a run")
    again = attempt(setup, Wanted(plan, repeats=old), lambda: pytest.fail("begun again"))
    assert again.skipped and again.line == "recorded by another process as its id"
    assert not work.folder.exists()


# ---- progress -------------------------------------------------------------------------------------------------------


class Shown:
    """A sweep that keeps what is shown of its runs."""

    def __init__(self) -> None:
        self.lines: list[tuple[object, ...]] = []
        self.repeated = 0

    def repeat(self) -> None:
        self.repeated += 1

    @contextmanager
    def run(self, name: str) -> Iterator[SentProgress]:
        self.lines.append((name,))
        yield SentProgress(self.lines.append)
        self.lines.append(("end",))


def test_progress_comes_through_a_file(tmp_path: Path) -> None:
    file = tmp_path / "messages.jsonl"
    file.write_text('["begin"]\n["say", "of an earlier sweep"]\n')
    read, shown = MessageFile(file), Shown()
    received = ReceivedProgress("a run", shown)  # type: ignore[arg-type]  # it stands for a SweepProgress

    def show() -> list[tuple[object, ...]]:
        for message in read.read():
            received.receive(message)
        found = shown.lines[:]
        shown.lines.clear()
        return found

    assert show() == []
    written = MessageFile(file)
    sent = SentProgress(written.write)
    written.write(BEGIN)
    sent.plan({"training": 8})
    sent.start("training", 4)
    assert show() == [("a run",), ("plan", {"training": 8}), ("start", "training", 4)]
    sent.say("resuming after step 2")
    sent.advance(4, "loss 1.0")
    assert show() == [("say", "resuming after step 2"), ("advance", 4, "loss 1.0")]
    with file.open("a") as damaged:
        damaged.write('["advance", 5')  # its process is killed
    assert show() == [] and shown.repeated == 0
    with file.open("a") as damaged:
        damaged.write('\n["close"]\n')
    written.write(BEGIN)
    assert show() == [("end",), ("a run",)] and shown.repeated == 1
    received.end()
    assert not received.begun
    file.unlink()
    assert show() == [("end",)]


def test_a_run_goes_on_where_its_messages_cannot_be_written(tmp_path: Path) -> None:
    MessageFile(tmp_path / "gone" / "messages.jsonl").write(BEGIN)
