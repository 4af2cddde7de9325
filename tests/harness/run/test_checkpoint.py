"""Training that is interrupted and goes on from a checkpoint ends with the same bits as training in one go."""

import json
import random
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.config.recipe import TrainRecipe
from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.records import PeakMemory, StepMeasured
from harness.run import train
from harness.run.checkpoint import STATE_FILE, TENSORS_FILE, Checkpoints, restore_training, training_tensors
from harness.run.execution import MicroBatch
from harness.run.measured import TrainResult
from harness.run.optimiser import adamw
from harness.run.random_states import RandomStates
from harness.run.step import OptimiserStep
from harness.run.train import Callbacks, Resources, Training
from harness.stopping import Stopped, stop_on_signals
from methods.base import Batch
from tests.folders import byte_tokenizer

RECIPE = TrainRecipe(epochs=3, warmup_epochs=1, batch_size=4, base_lr=1.0, max_length=16)
STEPS = 9  # 11 examples are 3 steps per epoch
HASH = "0" * 16


class Stop(Exception):
    """Ends training where a test wants it to end."""


class Model(nn.Module):
    """A loss over dropped-out embeddings, so that every random number and every sample matters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(300, 8)
        self.head = nn.Linear(8, 1)
        self.dropout = nn.Dropout(0.5)

    def summed_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        losses: Tensor = self.head(self.dropout(self.embedding(batch.input_ids_BL))).square()
        return losses.sum(), torch.tensor(losses.numel())


def run(
    folder: Path | None,
    stop_after: int | None = None,
    said: list[str] | None = None,
    after_step: Callable[[StepMeasured], None] = lambda step: None,
    minutes: float = 0.0,
    make: type[Model] = Model,
    micro_batch: int = 2,
    between_steps: Callable[[], None] = lambda: None,
) -> tuple[Model, TrainResult]:
    """Train from the checkpoints in `folder`, by default with a checkpoint after every optimiser step."""
    set_seed(5)
    model, result = make(), TrainResult()
    collator = Collator(byte_tokenizer(), ImagePreprocessor(32), RECIPE.max_length)
    examples = [Example(str(i), "x" * i, "y") for i in range(11)]

    def on_step(step: StepMeasured) -> None:
        after_step(step)
        if step.step == stop_after:
            raise Stop

    Training(
        model,
        examples,
        collator,
        RECIPE,
        7,
        Resources(torch.device("cpu"), micro_batch=MicroBatch(micro_batch, automatic=True)),
        Callbacks(on_step, between_steps, (said if said is not None else []).append),
        result,
        None if folder is None else Checkpoints(folder, HASH, minutes),
    ).run()
    return model, result


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("stops", [[1], [2], [3], [4], [8], [2, 3, 5, 6, 7]])
def test_interrupted_training_ends_with_the_same_bits(stops: list[int], tmp_path: Path) -> None:
    whole, expected = run(None)
    for stop in stops:
        with pytest.raises(Stop):
            run(tmp_path, stop_after=stop)
    resumed, result = run(tmp_path)
    assert same(resumed, whole)
    assert result.losses == expected.losses and len(result.losses) == STEPS
    assert result.epochs == expected.epochs == 3.0


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_leaves_a_checkpoint_of_whole_steps_only(
    signals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[int] = []
    whole_step = OptimiserStep.__call__

    def stopped_step(self: OptimiserStep, batches: Any, rate: float, step: int) -> float:
        loss = whole_step(self, batches, rate, step)
        for _ in range(signals if step == 4 else 0):
            signal.raise_signal(signal.SIGTERM)
        return loss

    with monkeypatch.context() as patch, pytest.raises(Stopped), stop_on_signals():
        patch.setattr(OptimiserStep, "__call__", stopped_step)
        run(tmp_path, after_step=lambda step: finished.append(step.step), minutes=60.0)
    if signals == 1:  # the stop waits until all that belongs to the step is done
        assert finished == [1, 2, 3, 4]
        assert [folder.name for folder in tmp_path.glob("step-*")] == ["step-00000004"]
    else:
        assert finished == [1, 2, 3]
        assert not list(tmp_path.glob("step-*"))
    assert same(run(tmp_path)[0], run(None)[0])


class StopAtLine:
    """Sends a signal before the line of the training loop that comes `line` lines after an optimiser step."""

    def __init__(self, step: int, line: int) -> None:
        self.step, self.left, self.is_behind = step, line, False

    def note(self, step: StepMeasured) -> None:
        """Count lines behind the one step and before the next; call this after every step."""
        self.is_behind = step.step == self.step

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        """Be the trace function of Python."""
        if frame.f_code.co_filename != train.__file__:
            return None
        if event == "line" and self.is_behind:
            self.left -= 1
            if self.left < 0:
                self.is_behind = False
                signal.raise_signal(signal.SIGTERM)
        return self.trace


def test_a_signal_at_any_line_between_two_epochs_changes_no_bit(tmp_path: Path) -> None:
    whole, expected = run(None)
    for line in count():
        stop, folder, before = StopAtLine(3, line), tmp_path / str(line), sys.gettrace()
        sys.settrace(stop.trace)
        try:
            with stop_on_signals():
                run(folder, after_step=stop.note, minutes=60.0)
            break  # there are fewer lines
        except Stopped:
            pass
        finally:
            sys.settrace(before)
        resumed, result = run(folder, minutes=60.0)
        assert result.losses == expected.losses, f"stopped {line} lines after the step"
        assert same(resumed, whole)
    assert line > 10


def test_a_signal_before_the_first_step_of_a_resumed_training_changes_no_bit(tmp_path: Path) -> None:
    """As in the middle of a validation that an interruption has left out."""
    with pytest.raises(Stop):
        run(tmp_path, stop_after=6)
    with pytest.raises(Stopped), stop_on_signals():
        run(tmp_path, between_steps=lambda: signal.raise_signal(signal.SIGTERM))
    resumed, result = run(tmp_path)
    assert same(resumed, run(None)[0]) and len(result.losses) == STEPS


def test_training_resumes_and_does_not_start_again(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path, stop_after=5)
    said: list[str] = []
    run(tmp_path, said=said)
    # The fifth step was interrupted before its checkpoint.
    assert said == ["resuming after optimiser step 4"]


def test_the_last_two_checkpoints_are_kept_and_no_temporary_folder(tmp_path: Path) -> None:
    run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000008", "step-00000009"]


def damage_tensors(folder: Path) -> None:
    content = bytearray((folder / TENSORS_FILE).read_bytes())
    content[-1] ^= 1
    (folder / TENSORS_FILE).write_bytes(content)


def truncate_state(folder: Path) -> None:
    state = folder / STATE_FILE
    state.write_bytes(state.read_bytes()[:100])


def another_run(folder: Path) -> None:
    state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text())
    (folder / STATE_FILE).write_text(json.dumps({**state, "spec_hash": "1" * 16}))


def states_of_one_process(folder: Path) -> None:
    """As checkpoints were before they held the states of every process."""
    state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text())
    first = {name: state[name][0] for name in ("python_rng", "numpy_rng")}
    (folder / STATE_FILE).write_text(json.dumps({**state, **first}))


def no_tensors(folder: Path) -> None:
    (folder / TENSORS_FILE).unlink()


@pytest.mark.parametrize("damage", [damage_tensors, truncate_state, another_run, states_of_one_process, no_tensors])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage: Any, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path, stop_after=6)
    damage(tmp_path / "step-00000005")
    said: list[str] = []
    resumed, _ = run(tmp_path, said=said)
    assert len(said) == 2 and "step-00000005: damaged checkpoint" in said[0] and "\n" not in said[0]
    assert said[1] == "resuming after optimiser step 4"
    assert same(resumed, run(None)[0])


def test_unusable_checkpoints_of_later_steps_do_not_displace_new_ones(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path, stop_after=6)
    for folder in tmp_path.iterdir():
        truncate_state(folder)
    with pytest.raises(Stop):
        run(tmp_path, stop_after=3)
    said: list[str] = []
    resumed, _ = run(tmp_path, said=said)
    assert said == ["resuming after optimiser step 2"]
    assert same(resumed, run(None)[0])


class Small(Model):
    """Has memory for two samples."""

    def summed_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if len(batch.input_ids_BL) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return super().summed_loss(batch)


def test_resuming_makes_the_forward_passes_that_memory_allowed_before(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path, stop_after=4, make=Small, micro_batch=RECIPE.batch_size)
    resumed, result = run(tmp_path, make=Small, micro_batch=RECIPE.batch_size)
    assert result.micro_batch == 2
    assert same(resumed, run(None, make=Small, micro_batch=RECIPE.batch_size)[0])


def test_the_peak_of_memory_is_that_of_all_processes_that_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rss, stop in ((900, 3), (100, 5)):
        monkeypatch.setattr(train, "read_peak", lambda device, rss=rss: PeakMemory(rss=rss))
        with pytest.raises(Stop):
            run(tmp_path, stop_after=stop)
    assert run(tmp_path)[1].peak == PeakMemory(rss=900)


def test_without_a_usable_checkpoint_training_starts_anew(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path, stop_after=2)
    damage_tensors(tmp_path / "step-00000001")
    assert same(run(tmp_path)[0], run(None)[0])


def test_a_checkpoint_holds_the_adapter_and_nothing_frozen(tmp_path: Path) -> None:
    run(tmp_path)
    names = set(load_file(tmp_path / "step-00000009" / TENSORS_FILE))
    adapter = {"adapter.embedding.weight", "adapter.head.weight", "adapter.head.bias"}
    assert {name for name in names if name.startswith("adapter.")} == adapter
    assert {"rng.0.torch", "rng.epoch", "optimizer.head.bias.exp_avg"} <= names


def test_each_process_gets_all_its_random_states_back(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    states, expected = [], []
    for seed in (1, 2):
        set_seed(seed)
        states.append(RandomStates.now())
        expected.append(draw())
    model = Model()
    optimizer = adamw(model, RECIPE)
    progress = {"steps_of_epoch": 0, "measured": TrainResult(), "cut": []}
    tensors = training_tensors(model, optimizer, torch.Generator().get_state(), states)
    checkpoints = Checkpoints(tmp_path, HASH, 0)
    checkpoints.write(progress, tensors, states)
    found = checkpoints.latest(pytest.fail)
    assert found is not None
    for rank in (0, 1):
        restore_training(*found, model, optimizer, rank)
        assert draw() == expected[rank]
    set_seed(3)
    of_new = draw()
    set_seed(3)
    restore_training(*found, model, optimizer, 2)  # a process that was not there
    assert draw() == of_new


def test_checkpoints_are_minutes_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("harness.run.checkpoint.time.monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, HASH, 10)
    assert not checkpoints.is_due
    now[0] = 600.0
    assert checkpoints.is_due
