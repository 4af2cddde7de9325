"""Experiment trackers: they are checked before training, receive every step, and never stop a run."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from harness.records import read_records
from tests.command_line import Run


def test_an_unknown_tracker_is_refused_before_anything_is_read(call: Run) -> None:
    done = call("run", "--model", "tiny", "--tracker", "paper")
    assert done.code == 2 and "--tracker paper: no such tracker; choose one of tensorboard, wandb, trackio" in done.err


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_found_before_training(
    name: str, call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else real(module))
    done = call(*base, "--methods", "memvp", "--tracker", name)
    assert done.code == 2 and "training" not in done.out and not (tmp_path / "results").exists()
    assert done.err.strip().endswith(
        f'--tracker {name}: the package is not installed; run `pip install -e ".[{name}]"`'
    )


@pytest.mark.extra("tensorboard", package="tensorboard")
def test_tensorboard_receives_every_step(call: Run, base: list[str], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = call(*base, "--methods", "memvp", "--tracker", "tensorboard", "--eval-every", "3")
    assert done.code == 0 and "going on without" not in done.out, done.out
    (record,) = read_records(tmp_path / "results")
    run = f"scienceqa/{record.model}/memvp/seed0-{record.spec_hash}"
    events = EventAccumulator(str(tmp_path / "results" / "trackers" / run / "peft-vl-bench"))
    events.Reload()
    losses = events.Scalars("loss")
    assert record.loss is not None
    assert [event.step for event in losses] == [1, 2, 3] and losses[-1].value == pytest.approx(record.loss.last)
    assert {"learning_rate", "samples_per_s", "validation_accuracy"} <= set(events.Tags()["scalars"])


@pytest.mark.extra("wandb", package="wandb")
def test_wandb_runs_offline(call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = call(*base, "--methods", "memvp", "--tracker", "wandb")
    assert done.code == 0 and "going on without" not in done.out, done.out
    assert list((tmp_path / "results" / "trackers").rglob("*.wandb"))


@pytest.mark.extra("trackio", package="trackio")
def test_trackio_writes_where_it_is_told(
    call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # trackio reads it when it is imported
    done = call(*base, "--methods", "memvp", "--tracker", "trackio")
    assert done.code == 0 and "going on without" not in done.out, done.out
    assert list((tmp_path / "trackio").rglob("*.db"))


@pytest.mark.parametrize("broken", ["start", "log", "finish"])
def test_a_tracker_that_fails_does_not_stop_the_run(
    broken: str, call: Run, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        """A tracker with one method that fails."""

        def __getattr__(self, name: str) -> Any:
            def act(*arguments: object, **options: object) -> None:
                if name == broken:
                    raise OSError("the server is gone")

            return act

    def start(*arguments: object) -> list[Broken]:
        tracker = Broken()
        tracker.start()
        return [tracker]

    monkeypatch.setattr("harness.run.tracker._start", start)
    monkeypatch.setattr("harness.commands.run.require_tracker", lambda name: None)
    done = call(*base, "--methods", "memvp", "--tracker", "tensorboard")
    assert done.code == 0
    line = "memvp seed 0: --tracker tensorboard: OSError: the server is gone; going on without it"
    assert done.out.count(line) == 1
    assert [record.status for record in read_records(tmp_path / "results")] == ["completed"]
