"""A run that is killed while it writes and publishes what it made. What it computes is replaced by a number here."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from rich.console import Console

from harness.backbone.machine import Machine
from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import PRESETS
from harness.files import write_atomic
from harness.records import (
    BackboneInfo,
    Data,
    DiagnosticMatrix,
    Diagnostics,
    Git,
    Metric,
    Parameters,
    ParseFailures,
    StepMeasured,
    collect_environment,
    diagnostics_path,
    predictions_path,
    read_history,
    read_records,
    record_path,
)
from harness.run.attempt import Attempt, Wanted, record_death
from harness.run.cores import Cores
from harness.run.lock import LOCK_FILE, OWNER_FILE
from harness.run.measured import TrainResult
from harness.run.outcome import Outcome
from harness.run.progress import Progress
from harness.run.setup import Setup
from harness.run.sweep import SweepResult, sweep
from harness.tasks.contract import Evaluation
from tests.command_line import Run, files

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

CHANGES = ("mkdir", "replace", "rmdir", "unlink")
"""The functions of `os` by which a run changes what is where; each is a moment to be killed at."""
KILLED = 9
WEIGHTS = "adapter_model.safetensors"


class Kept(NamedTuple):
    """Which training the files of a run come from, by the number that stands for what it computed."""

    record: float
    predictions: float
    history: float
    adapter: float
    has_diagnostics: bool


def whole(number: float) -> Kept:
    """Return the files of one training, all of them; only the first one has diagnostics."""
    return Kept(number, number, number, number, has_diagnostics=number == 1)


def kept(results: Path) -> Kept:
    """Return what the folder of one complete run holds."""
    (record,) = read_records(results)
    path = record_path(record, results)
    history = read_history(path)
    (adapter,) = (results / "adapters").rglob(WEIGHTS)
    assert record.status == "completed" and record.metrics["Avg"].value is not None and history is not None
    return Kept(
        record.metrics["Avg"].value,
        json.loads(predictions_path(path).read_text())["number"],
        history.points[-1].loss,
        float(adapter.read_text()),
        diagnostics_path(path).exists(),
    )


def has_training(results: Path) -> bool:
    """Return whether a finished training waits for its evaluation or its record."""
    return any(results.rglob("training.json"))


def unfinished(results: Path) -> set[str]:
    """Return the files of the workspace, except those of its lock."""
    return {Path(name).name for name in files(results / "unfinished")} - {LOCK_FILE, OWNER_FILE}


def recorded(results: Path) -> float | None:
    """Return the training that the record comes from."""
    (record,) = read_records(results)
    return record.metrics["Avg"].value


def no_permission(*arguments: object, ignore_errors: bool = False) -> None:
    """Stand in for what changes files."""
    if not ignore_errors:
        raise PermissionError(errno.EACCES, "Permission denied", "a file")


def published(results: Path) -> set[str]:
    """Return the files of the run, by their endings, and none that only an unfinished one has."""
    names = {Path(name).name for name in files(results) if not name.startswith("unfinished/")}
    return {name.partition(".")[2] for name in names} - {"diagnostics.json"}


WHOLE = {"json", "predictions.jsonl", "history.json", "safetensors"}


class Sweeps:
    """Sweeps over one run. Its trainings, and what they compute, are numbers: 1, 2 and so on.

    Args:
        results: folder of the record.
        patch: replaces what computes.
        number: of the last training.
    """

    def __init__(self, results: Path, patch: pytest.MonkeyPatch, number: int = 0) -> None:
        data = Data(name="mini", data_hash="a" * 64, files={}, split_sizes={"train": 8})
        task: Any = SimpleNamespace(name="scienceqa", data=lambda recipe: data)
        sizes = {"hidden_size": 32, "num_layers": 4, "vision_layers": 4, "dtype": "float32"}
        info = {"llm": "tiny-llm", "clip": "tiny-clip", "weights": "shipped", "weight_hash": "b" * 64, **sizes}
        self.results, self._patch, self._number = results, patch, number
        self._setup = Setup(PRESETS["tiny"], task, Machine(torch.device("cpu"), torch.float32), 0.0, results)
        self._setup._info = BackboneInfo.model_validate(info)
        self._plans = plan_runs(["memvp"], (), [0], PRESETS["tiny"], "scienceqa", Overrides())
        patch.setattr("harness.run.sweep.check_runs", lambda *arguments: [])
        environment = collect_environment(threads=1)
        patch.setattr("harness.run.outcome.collect_environment", lambda **found: environment)
        patch.setattr("harness.run.outcome.collect_git", lambda: Git(reason="a test"))
        patch.setattr("harness.run.runner.gc", SimpleNamespace(collect=lambda: 0))
        patch.setattr(os, "fsync", lambda descriptor: None)  # the disk outlives the process

    def _measure(self, setup: Setup, plan: RunPlan, outcome: Outcome, progress: Progress) -> None:
        """Stand in for training, unless it is finished, and for evaluation."""
        work = setup.workspace(plan)
        if work.finished_training() is None:
            training = TrainResult([StepMeasured(1, float(self._number), 0.1, 1, 1.0)], 1.0, 1.0, 1)
            work.keep_training(training, 0, lambda folder: write_atomic(folder / WEIGHTS, str(self._number)))
        finished = work.finished_training()
        assert finished is not None
        number = int((work.adapter / WEIGHTS).read_text())
        outcome.training, outcome.train_truncated, outcome.load_s = finished.measured, 0, 1.0
        outcome.parameters = Parameters(trainable=1, paper_convention=1, total=2, by_module={})
        metrics = {"Avg": Metric(value=number, n=1, stderr=0.0)}
        outcome.evaluation = Evaluation(metrics, ParseFailures(count=0, n=1), 0, rows=[{"number": number}])
        if number == 1:
            labels = {"row_labels": ["a"], "column_labels": ["b"], "mean": [[1.0]]}
            texts = {"name": "figure", "title": "", "about": "", "rows": "", "columns": ""}
            matrix = DiagnosticMatrix.model_validate({**texts, **labels})
            outcome.diagnostics = Diagnostics(spec_hash=work.spec_hash, images=1, matrices=[matrix])

    def make(self, force: bool = False) -> SweepResult:
        """Make the run if it is not recorded, or with `force`. A training that begins is the next one."""
        self._number += 1
        self._patch.setattr("harness.run.runner.measure", self._measure)
        console, cores = Console(quiet=True), Cores(1, 1)
        return sweep(lambda: self._setup, self._setup, self._plans, console, force, cores)

    def make_and_kill(self, moment: int, force: bool = False) -> bool:
        """Do the same in a process of its own, which ends at a moment; return whether it came so far."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                end_before_change(moment, self._patch)
                self.make(force)
                status = 0
            finally:
                os._exit(status)
        self._number += 1
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, KILLED)
        return status == KILLED

    def record_death(self, error: str) -> Attempt:
        """Record that the process of the run died."""
        return record_death(self._setup, Wanted(self._plans[0]), error)

    def copied(self, folder: Path) -> "Sweeps":
        """Return the same for a copy of the results."""
        return Sweeps(shutil.copytree(self.results, folder), self._patch, self._number)


def end_before_change(moment: int, patch: pytest.MonkeyPatch) -> None:
    """End this process, as a kill does, before it changes for the nth time what is where; the first is moment 0."""
    moments = count()

    def killing(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **named: Any) -> Any:
            if next(moments) == moment:
                os._exit(KILLED)
            return change(*arguments, **named)

        return changed

    for name in CHANGES:
        patch.setattr(os, name, killing(getattr(os, name)))


def killed_at_each_moment(
    start: Sweeps | None, folder: Path, patch: pytest.MonkeyPatch, force: bool = False
) -> Iterator[Sweeps]:
    """Yield sweeps whose run was killed, for every moment at which it can be.

    Args:
        start: what is there before; None for nothing.
        folder: where each of them gets a folder.
        patch: replaces what computes.
        force: whether the run is made with `--force`.
    """
    for moment in count():
        place = folder / str(moment)
        sweeps = Sweeps(place, patch) if start is None else start.copied(place)
        if not sweeps.make_and_kill(moment, force):
            break
        yield sweeps
    assert moment > 10


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sweeps in killed_at_each_moment(None, tmp_path, monkeypatch):
        was_kept = has_training(sweeps.results) or bool(read_records(sweeps.results))
        sweeps.make()
        assert kept(sweeps.results) == whole(1 if was_kept else 2)
        assert published(sweeps.results) == WHOLE and not unfinished(sweeps.results)


@pytest.fixture
def complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    """A complete run, of training 1."""
    sweeps = Sweeps(tmp_path / "complete", monkeypatch)
    sweeps.make()
    assert kept(sweeps.results) == whole(1)
    return sweeps


@pytest.mark.slow
def test_a_repeated_run_killed_at_any_moment_leaves_the_old_one_or_the_new_one(
    complete: Sweeps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = set()
    for moment, sweeps in enumerate(killed_at_each_moment(complete, tmp_path, monkeypatch, force=True)):
        was_kept, was_recorded = has_training(sweeps.results), recorded(sweeps.results) == 2
        forced = sweeps.copied(tmp_path / f"{moment}-forced")

        sweeps.make()
        found = kept(sweeps.results)
        assert found in (whole(1), whole(2)) and published(sweeps.results) == WHOLE
        ends.add(found)
        sweeps.make(force=True)  # goes on with a run that is not over, and repeats one that is
        assert kept(sweeps.results) == whole(2 if found == whole(1) and was_kept else 4)
        assert published(sweeps.results) == WHOLE and not unfinished(sweeps.results)

        forced.make(force=True)
        assert kept(forced.results) == whole(2 if was_kept and not was_recorded else 3)
        assert published(forced.results) == WHOLE and not unfinished(forced.results)
    assert ends == {whole(1), whole(2)}


@pytest.fixture
def half_published(complete: Sweeps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    """The same after training 2, with `--force`, was killed when its adapter was in place and its record was not."""
    for sweeps in killed_at_each_moment(complete, tmp_path / "kills", monkeypatch, force=True):
        if any(path.read_text() == "2" for path in (sweeps.results / "adapters").rglob(WEIGHTS)):
            assert recorded(sweeps.results) == 1
            return sweeps
    raise AssertionError("the adapter is published before the record")


def test_a_publication_killed_again_at_any_moment_is_finished(
    half_published: Sweeps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sweeps in killed_at_each_moment(half_published, tmp_path, monkeypatch):
        sweeps.make()
        assert kept(sweeps.results) == whole(2)
        assert published(sweeps.results) == WHOLE and not unfinished(sweeps.results)


def test_a_process_that_dies_while_it_publishes_has_not_failed(half_published: Sweeps) -> None:
    died = half_published.record_death("its process was ended by SIGKILL")
    assert died.record is not None and died.record.status == "completed"
    assert kept(half_published.results) == whole(2) and not unfinished(half_published.results)


def test_a_publication_that_cannot_be_finished_fails_its_run_and_can_be_finished_later(
    half_published: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("harness.run.recording._publish_parts", no_permission)
        (failed,) = half_published.make().failed
    assert failed.error is not None and "complete, but it cannot be published" in failed.error
    assert kept(half_published.results) == whole(1)  # with the adapter of its own
    half_published.make()
    assert kept(half_published.results) == whole(2) and not unfinished(half_published.results)


def test_a_workspace_that_could_not_be_removed_is_not_gone_on_from(
    complete: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("harness.run.workspace.shutil.rmtree", no_permission)
        complete.make(force=True)
        assert kept(complete.results) == whole(2) and unfinished(complete.results)
        (failed,) = complete.make(force=True).failed
        assert "cannot be removed" in str(failed.error) and kept(complete.results) == whole(2)
    left = complete.copied(complete.results.with_name("left"))
    complete.make(force=True)
    assert kept(complete.results) == whole(4) and not unfinished(complete.results)
    left.make()
    assert kept(left.results) == whole(2) and not unfinished(left.results)


def test_a_record_under_another_name_is_not_doubled(call: Run, base: list[str], tmp_path: Path) -> None:
    assert call(*base, "--methods", "memvp").code == 0
    (record,) = read_records(tmp_path / "results")
    path = record_path(record, tmp_path / "results")
    path.rename(path.with_name("mine.json"))
    done = call(*base, "--methods", "memvp", "--force")
    assert done.code == 2 and f"{record.run_id} is not at {path}; move it there" in done.err
    assert read_records(tmp_path / "results") == [record]


def test_results_on_two_file_systems_are_found_before_training(call: Run, base: list[str], tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    (tmp_path / "results").mkdir()
    with TemporaryDirectory(dir=other) as folder:
        (tmp_path / "results" / "adapters").symlink_to(folder)
        done = call(*base, "--methods", "memvp")
    assert done.code == 2 and "is on another file system than" in done.err and "training" not in done.out
