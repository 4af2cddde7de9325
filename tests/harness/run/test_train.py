"""The training loop, on a random backbone and a toy data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from PIL import Image
from torch import nn

from harness.config.recipe import TrainRecipe
from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.loading import Loading
from harness.processes import Processes
from harness.records import StepMeasured, make_history
from harness.run import train
from harness.run.checkpoint import Checkpoints
from harness.run.execution import MicroBatch
from harness.run.measured import TrainResult
from harness.run.optimiser import parameter_groups
from harness.run.schedule import TrainingLength, training_length
from harness.run.step import TrainingFailedError
from harness.run.train import Callbacks, Resources, Training
from methods.tuned import TunedModel
from tests.backbones import tiny_backbone, tuned_model
from tests.folders import byte_tokenizer

RECIPE = TrainRecipe(epochs=4, warmup_epochs=0, batch_size=4, base_lr=1.0, max_length=64)
NO_DROPOUT = {"memory_dropout": 0.0, "adapter_dropout": 0.0}


def examples(count: int = 8) -> list[Example]:
    """Return examples of equal length."""
    return [Example(str(i), f"Question {i}: what?", f"The answer is {'AB'[i % 2]}.") for i in range(count)]


def collator() -> Collator:
    return Collator(byte_tokenizer(), ImagePreprocessor(32), max_length=64)


def model(**config: Any) -> TunedModel:
    return tuned_model("memvp", tiny_backbone(vocab_size=300, num_layers=2), **config)


CPU = Resources(torch.device("cpu"))


def run(
    tuned: nn.Module, recipe: TrainRecipe = RECIPE, data: Sequence[Example] | None = None, seed: int = 0, **more: Any
) -> TrainResult:
    torch.manual_seed(seed)
    return Training(tuned, data or examples(), collator(), recipe, seed, **{"resources": CPU, **more}).run()


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if not torch.equal(before[name], p)}


def with_changes(**changes: Any) -> TrainRecipe:
    return TrainRecipe(**{**RECIPE.model_dump(), **changes})


def test_no_decay_on_biases_and_vectors() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    module[2].weight.requires_grad_(False)
    decayed, plain = parameter_groups(module, 0.3)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(module[0].weight)}
    assert {id(p) for p in plain["params"]} == {
        id(p) for p in (module[0].bias, module[1].weight, module[1].bias, module[2].bias)
    }


def test_groups_hold_every_parameter_of_a_method_and_nothing_else() -> None:
    tuned = model()
    grouped = [id(p) for group in parameter_groups(tuned, 0.1) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in tuned.method.parameters())


@pytest.mark.parametrize(("count", "batch", "per_epoch", "total"), [(8, 4, 2, 8), (9, 4, 3, 12), (9, 6, 2, 8)])
def test_number_of_steps(count: int, batch: int, per_epoch: int, total: int) -> None:
    recipe = with_changes(batch_size=batch, base_lr=1e-9)
    assert training_length(count, recipe) == TrainingLength(steps=total, steps_per_epoch=per_epoch)
    result = run(model(), recipe, examples(count))
    assert (len(result.losses), result.epochs) == (total, 4.0)


def test_a_fraction_of_an_epoch() -> None:
    result = run(model(), RECIPE.with_length(0.5))
    assert (len(result.losses), result.epochs) == (1, 0.5)


class Learnt(NamedTuple):
    """Ten epochs of training: the model before and after, what was measured, and the calls of `on_step`."""

    before: dict[str, torch.Tensor]
    own_before: dict[str, torch.Tensor]
    tuned: TunedModel
    result: TrainResult
    steps: list[StepMeasured]


@pytest.fixture(scope="module")
def learnt() -> Learnt:
    tuned = model(**NO_DROPOUT)
    before, own_before = state(tuned), state(tuned.method)
    steps: list[StepMeasured] = []
    result = run(tuned, with_changes(epochs=10), callbacks=Callbacks(on_step=steps.append))
    return Learnt(before, own_before, tuned, result, steps)


def test_the_loss_falls(learnt: Learnt) -> None:
    assert sum(learnt.result.losses[-4:]) < 0.7 * sum(learnt.result.losses[:4])


def test_the_frozen_parameters_do_not_change(learnt: Learnt) -> None:
    own = {id(p) for p in learnt.tuned.method.parameters()}
    frozen = {name for name, p in learnt.tuned.named_parameters() if id(p) not in own}
    assert frozen and not frozen & changed(learnt.before, learnt.tuned)


def test_the_methods_own_parameters_change(learnt: Learnt) -> None:
    # No example has an image, so parameters that only images reach move by weight decay alone.
    assert {"memory.prompts.keys", "memory.prompts.values"} <= changed(learnt.own_before, learnt.tuned.method)


def test_every_step_is_reported(learnt: Learnt) -> None:
    assert [step.step for step in learnt.steps] == list(range(1, len(learnt.result.losses) + 1))
    assert learnt.steps == learnt.result.steps
    assert learnt.steps[0].learning_rate > learnt.steps[-1].learning_rate > 0
    assert {step.samples for step in learnt.steps} == {4} and all(step.memory_bytes for step in learnt.steps)


def test_every_step_is_timed(learnt: Learnt) -> None:
    result = learnt.result
    assert len(result.step_s) == len(result.losses) and result.total_s >= sum(result.step_s) > 0


def test_the_wait_for_a_batch_is_measured_and_what_is_done_between_steps_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def take(seconds: float) -> None:
        now[0] += seconds

    class Slow(Collator):
        def __call__(self, batch: Sequence[Example]) -> dict[str, Any]:
            take(3.0)
            return super().__call__(batch)

    tuned, checkpoints = model(), Checkpoints(tmp_path, "0" * 16, minutes=0)
    summed_loss, write = tuned.summed_loss, checkpoints.write

    def slow_loss(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        take(1.0)
        return summed_loss(batch)

    def slow_write(*arguments: Any) -> None:
        take(100.0)
        write(*arguments)

    monkeypatch.setattr(train, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(tuned, "summed_loss", slow_loss)
    monkeypatch.setattr(checkpoints, "write", slow_write)
    slow = Callbacks(on_step=lambda step: take(1000.0), between_steps=lambda: take(10000.0))
    data = Slow(byte_tokenizer(), ImagePreprocessor(32), 64)
    result = Training(tuned, examples(), data, with_changes(epochs=2), 0, CPU, slow, checkpoints=checkpoints).run()
    assert [(step.waited_s, step.seconds) for step in result.steps] == [(3.0, 1.0)] * 4
    assert [point.samples_per_s for point in make_history("0" * 16, result.steps).points] == [1.0] * 4


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    losses, again, other = (run(model(), seed=seed).losses for seed in (0, 0, 1))
    assert losses == again  # bit for bit, dropout and order included
    assert losses != other


def test_every_epoch_sees_every_example_in_a_new_order() -> None:
    orders: list[list[str]] = [[]]

    class Noting(Collator):
        def __call__(self, batch: Sequence[Example]) -> dict[str, Any]:
            if len(orders[-1]) == 8:
                orders.append([])
            orders[-1] += [example.id for example in batch]
            return super().__call__(batch)

    torch.manual_seed(0)
    noting = Noting(byte_tokenizer(), ImagePreprocessor(32), 64)
    Training(model(), examples(), noting, with_changes(epochs=3), 0, CPU).run()
    assert [sorted(order) for order in orders] == [[str(i) for i in range(8)]] * 3
    assert len({tuple(order) for order in orders}) == 3


def gradients(recipe: TrainRecipe) -> tuple[list[float], list[torch.Tensor]]:
    """Return the losses of a run without dropout, and the gradients at each of its optimiser steps, in one vector."""
    seen: list[torch.Tensor] = []
    original = torch.optim.AdamW.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        parameters = [p for group in self.param_groups for p in group["params"]]
        seen.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).clone())
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        return run(model(**NO_DROPOUT), recipe).losses, seen


def test_gradient_clipping_scales_the_step() -> None:
    _, (free, *_) = gradients(with_changes(epochs=1))
    _, (clipped, *_) = gradients(with_changes(epochs=1, max_grad_norm=0.01))
    assert float(free.norm()) > 0.02
    torch.testing.assert_close(clipped, free * (0.01 / free.norm()), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("forwards", [1, 2])
def test_a_loss_that_is_no_number_stops_before_it_does_harm(value: float, forwards: int) -> None:
    tuned = model(**NO_DROPOUT)
    calls = 0
    kept: dict[str, torch.Tensor] = {}
    summed_loss = tuned.summed_loss

    def failing(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 2 * forwards + 1:  # the first forward of the third step
            kept.update(state(tuned))
        loss, tokens = summed_loss(batch)
        return (loss * value if calls == 3 * forwards else loss), tokens

    tuned.summed_loss = failing
    result = TrainResult()
    with pytest.raises(TrainingFailedError, match=r"^loss is -?(nan|inf) at step 3$") as failure:
        run(tuned, result=result, resources=replace(CPU, micro_batch=MicroBatch(4 // forwards, automatic=False)))
    assert failure.value.step == 3
    assert len(result.losses) == len(result.step_s) == 2
    assert result.epochs == 1.0 and result.total_s > 0
    assert kept and not changed(kept, tuned)


def test_answers_that_are_all_cut_off() -> None:
    short = Collator(byte_tokenizer(), ImagePreprocessor(32), max_length=8)
    tuned = model()
    before = state(tuned)
    result = Training(tuned, examples(), short, with_changes(max_length=8), 0, CPU).run()
    assert set(result.losses) == {0.0} and not changed(before, tuned)


def test_a_checkpoint_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "checkpoints"
    blocked.touch()
    lines: list[str] = []
    tuned, places = model(), Checkpoints(blocked, "0" * 16, minutes=0)
    result = run(tuned, checkpoints=places, callbacks=Callbacks(say=lines.append))
    assert len(lines) == len(result.steps) > 1
    assert lines[0].startswith("no checkpoint after optimiser step 1: ") and "cannot be written" in lines[0]


def test_a_closed_output_in_the_middle_of_a_step_ends_training_behind_it(tmp_path: Path) -> None:
    blocked = tmp_path / "checkpoints"
    blocked.touch()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(model(), checkpoints=Checkpoints(blocked, "0" * 16, minutes=0), callbacks=Callbacks(say=say))
    assert all(line.startswith("no checkpoint after optimiser step") for line in lines)


def test_the_last_step_is_kept_until_the_adapter_is(tmp_path: Path) -> None:
    steps = len(run(model(), checkpoints=Checkpoints(tmp_path, "0" * 16, minutes=1000)).steps)
    tuned, again = model(), Checkpoints(tmp_path, "0" * 16, minutes=1000)
    lines: list[str] = []
    assert len(run(tuned, checkpoints=again, callbacks=Callbacks(say=lines.append)).steps) == steps
    assert lines == [f"resuming after optimiser step {steps}"]


class Listening(Processes):
    """Two processes of which the other one sends nothing; keeps what this one sends by itself."""

    sent: ClassVar[list[Any]] = []

    def broadcast(self, value: Any) -> Any:
        self.sent.append(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


def test_steps_of_several_processes_share_nothing_but_their_sums(tmp_path: Path) -> None:
    places = Checkpoints(tmp_path, "0" * 16, minutes=0)
    result = run(model(), checkpoints=places, resources=replace(CPU, processes=Listening(0, 2)))
    assert Listening.sent == [None]  # there is no checkpoint to resume from
    assert len(result.steps) == 8 and (tmp_path / "step-00000008").is_dir() and (tmp_path / "step-00000007").is_dir()


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 2), (2, 1)])
def test_a_forward_pass_has_no_more_samples_than_a_process(before: int, after: int, tmp_path: Path) -> None:
    def train(processes: int, epochs: int) -> int | None:
        places = Checkpoints(tmp_path, "0" * 16, minutes=0)
        resources = replace(CPU, processes=Listening(0, processes))
        return run(model(), with_changes(epochs=epochs), checkpoints=places, resources=resources).micro_batch

    assert train(before, 1) == RECIPE.batch_size // before
    # Also where training resumes in more processes. In fewer, what may have been halved is not tried again.
    assert train(after, 2) == RECIPE.batch_size // 2


def test_workers_change_neither_losses_nor_parameters(tmp_path: Path) -> None:
    """With dropout, images, batches of unequal length and several epochs."""
    data = examples(10)
    for number in (1, 4, 7):
        image = tmp_path / f"{number}.png"
        Image.new("RGB", (40, 30), (25 * number, 0, 90)).save(image)
        data[number] = replace(data[number], prompt="Look. " * number, image=image)
    trained = []
    for workers in (0, 1, 2):
        tuned = model()
        resources = replace(CPU, micro_batch=MicroBatch.of(2, 4), loading=Loading(workers))
        losses = run(tuned, data=data, resources=resources).losses
        trained.append((losses, state(tuned)))
    (plain, parameters), *others = trained
    for losses, others_parameters in others:
        assert losses == plain and len(plain) == 12
        assert all(torch.equal(tensor, others_parameters[name]) for name, tensor in parameters.items())
