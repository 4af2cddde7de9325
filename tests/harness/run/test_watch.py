"""What can be watched during training, and that watching changes nothing."""

import json
import shutil
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.records import History, Record, StepMeasured, Validation, read_history, read_records, record_path
from harness.run.energy import EnergyMeter
from harness.run.measured import TrainResult
from harness.run.tracker import Tracker
from harness.run.watch import Watch
from harness.tasks.scienceqa import ScienceQATask
from tests import command_line
from tests.command_line import Done, Run, quick_run

Made = tuple[Done, Record, History, dict[str, str]]


def make(results: Path, llm: Path, clip: Path, data: Path, *options: str) -> Made:
    """Make one run; return the command, the record, the history, and the hashes of the adapter's files."""
    done = command_line.call(*quick_run(llm, clip, data, results), "--methods", "memvp", *options)
    assert done.code == 0, done.err
    (record,) = read_records(results)
    history = read_history(record_path(record, results))
    assert history is not None
    adapter = (results / "adapters").rglob("*.*")
    return done, record, history, {file.name: sha256(file.read_bytes()).hexdigest() for file in adapter}


@pytest.fixture(scope="module")
def unwatched(tmp_path_factory: pytest.TempPathFactory, mini_set: Path, small_llm: Path, small_clip: Path) -> Made:
    return make(tmp_path_factory.mktemp("unwatched"), small_llm, small_clip, mini_set)


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory, mini_set: Path, small_llm: Path, small_clip: Path) -> Made:
    return make(tmp_path_factory.mktemp("validated"), small_llm, small_clip, mini_set, "--eval-every", "1")


def test_the_history_is_that_of_the_record(unwatched: Made) -> None:
    _, record, history, _ = unwatched
    assert [point.step for point in history.points] == [1, 2, 3] and history.validations == []
    assert record.loss is not None
    assert (history.points[0].loss, history.points[-1].loss) == (record.loss.first, record.loss.last)
    assert history.points[0].learning_rate < history.points[1].learning_rate
    assert all(point.samples_per_s for point in history.points)
    assert history.points[-1].memory_bytes is not None and record.peak_memory_bytes.rss is not None
    assert 0 < history.points[-1].memory_bytes <= record.peak_memory_bytes.rss


def test_validation_changes_neither_the_run_nor_its_identity(unwatched: Made, validated: Made) -> None:
    assert validated[3] == unwatched[3] and len(unwatched[3]) == 2
    ours, theirs = validated[1], unwatched[1]
    assert (ours.spec_hash, ours.loss, ours.metrics) == (theirs.spec_hash, theirs.loss, theirs.metrics)


def test_validation_is_kept_and_shown(validated: Made) -> None:
    done, _, history, _ = validated
    assert [(found.step, found.n) for found in history.validations] == [(1, 8), (2, 8), (3, 8)]
    assert all(0 <= found.accuracy <= 100 for found in history.validations)
    last = history.validations[-1].accuracy
    assert f"memvp seed 0: step 3: validation accuracy {last:.2f} % of 8 problems" in done.out


def test_a_stop_does_not_wait_for_a_validation(
    validated: Made, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate, calls, answered = ScienceQATask.validate, [0], []

    def stopped_in_the_second(*arguments: Any) -> tuple[float, int]:
        calls[0] += 1
        torch.rand(3)
        if calls[0] == 2:
            signal.raise_signal(signal.SIGTERM)
        answered.append(calls[0])
        return validate(*arguments)

    monkeypatch.setattr(ScienceQATask, "validate", stopped_in_the_second)
    arguments = [*quick_run(small_llm, small_clip, mini_set, tmp_path), "--methods", "memvp", "--eval-every", "1"]
    done = command_line.call(*arguments, "--jobs", "1")
    assert done.code == 128 + signal.SIGTERM and answered == [1]
    (record,) = read_records(tmp_path)
    assert (record.status, record.error, record.steps) == ("interrupted", "interrupted by SIGTERM", 2)

    again, record, history, adapter = make(tmp_path, small_llm, small_clip, mini_set, "--eval-every", "1")
    assert "resuming after optimiser step 2" in again.out
    assert history.validations == validated[2].validations and adapter == validated[3]


def test_every_part_of_a_run_has_its_seconds(unwatched: Made, validated: Made) -> None:
    times, with_validation = unwatched[1].times_s, validated[1].times_s
    parts = (times.load, times.data, times.train, times.eval, times.scoring, times.write)
    assert all(part is not None and part > 0 for part in parts)
    assert times.inside is None  # MemVP shows nothing of its inside
    assert times.validation is None and with_validation.validation is not None and with_validation.validation > 0


def test_energy_is_not_invented(unwatched: Made) -> None:
    energy = unwatched[1].energy_joules
    assert (energy.train, energy.eval) == (None, None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--task", "coco"), "coco has no right answers"),
        (("--weights", "random"), "random weights have no accuracy"),
    ],
)
def test_validation_without_an_accuracy_is_refused(options: tuple[str, ...], says: str, call: Run) -> None:
    done = call("run", "--model", "tiny", "--eval-every", "5", *options)
    assert done.code == 2 and f"--eval-every: {says}" in done.err


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_validation_without_a_validation_split_is_refused_before_training(
    more: tuple[str, ...], call: Run, small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path
) -> None:
    data, results = shutil.copytree(mini_set, tmp_path / "data"), tmp_path / "results"
    splits = json.loads((data / "pid_splits.json").read_text())
    (data / "pid_splits.json").write_text(json.dumps({**splits, "val": []}))
    command = [*quick_run(small_llm, small_clip, data, results), "--methods", "memvp", "--eval-every", "1", *more]
    done = call(*command)
    assert done.code == 2 and "--eval-every: " in done.out + done.err and "split 'val'" in done.out + done.err
    assert not list(results.rglob("*.json"))
    assert "--eval-every: " not in call(*command, "--eval-every", "0", "--dry-run").out


class Meter(EnergyMeter):
    """A meter whose readings a test chooses."""

    def __init__(self, *readings: float | None) -> None:
        super().__init__(torch.device("cpu"))
        self.readings = list(readings)

    def joules(self) -> float | None:
        return self.readings.pop(0)


class Silent:
    """Progress of which nobody sees anything but the seconds of validations."""

    def __init__(self) -> None:
        self.validations_s: list[float] = []

    def validated(self, seconds: float) -> None:
        self.validations_s.append(seconds)

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: None


def watched(result: TrainResult, meter: EnergyMeter, steps: int, before: int = 0, **options: object) -> Silent:
    progress, model = Silent(), nn.Dropout(0.5)
    settings = {"every": 0, "validate": lambda: (50.0, 8), "model": model, **options}
    tracker = Tracker("", Path(), "", {}, print)
    watch = Watch(progress, result, meter, tracker, **settings)  # type: ignore[arg-type]  # Silent answers every call
    for number in range(before + 1, before + steps + 1):
        step = StepMeasured(number, 1.0, 1e-3, 4, 0.1)
        result.steps.append(step)
        watch(step)
        watch.validate_if_due()
    watch.read_energy()
    return progress


def test_energy_is_that_of_all_processes_that_trained() -> None:
    result = TrainResult()
    watched(result, Meter(100.0, 110.0, 130.0), steps=2)
    assert result.joules == 30.0
    watched(result, Meter(1000.0, 1001.0, 1012.0), steps=2, before=2)
    assert result.joules == 42.0


def test_energy_that_was_not_read_from_the_first_step_on_is_unknown() -> None:
    result = TrainResult()
    watched(result, Meter(None, None, None), steps=2)
    watched(result, Meter(1000.0, 1001.0, 1012.0), steps=2, before=2)
    assert result.joules is None


def test_validation_puts_mode_and_random_numbers_back() -> None:
    model = nn.Dropout(0.5)

    def validate() -> tuple[float, int]:
        model.eval()
        torch.rand(3)
        return 25.0, 4

    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    result = TrainResult()
    progress = watched(result, Meter(None, None, None), steps=5, every=2, validate=validate, model=model)
    assert model.training and torch.equal(torch.rand(2), expected)
    assert result.validations == [Validation(step=step, accuracy=25.0, n=4) for step in (2, 4)]
    assert len(progress.validations_s) == 2 and sum(progress.validations_s) == result.validation_s
