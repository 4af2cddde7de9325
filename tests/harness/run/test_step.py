"""One optimiser step: how its samples are divided into forward passes changes nothing but the memory."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.config.recipe import TrainRecipe
from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.errors import first_line
from harness.processes import ALONE, Processes
from harness.run.execution import Eager, MicroBatch
from harness.run.optimiser import adamw
from harness.run.outcome import Ending
from harness.run.random_states import RandomStates
from harness.run.step import OptimiserStep, collate_micro_batches
from harness.run.stop import StopAgreed
from methods import registry
from methods.base import Batch
from methods.tuned import TunedModel
from tests.backbones import no_dropout, tiny_backbone, tuned_model
from tests.folders import byte_tokenizer

ANSWERS = ("B", "a long answer of many tokens", "C, because", "none", "it depends", "yes")


@cache
def model(name: str, dropout: bool = False) -> TunedModel:
    """Return a model in training mode. The tests change none of its parameters."""
    tuned = tuned_model(name, tiny_backbone(vocab_size=300, num_layers=4), **({} if dropout else no_dropout(name)))
    with torch.no_grad():
        for parameter in tuned.method.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return tuned.train()


def collator() -> Collator:
    return Collator(byte_tokenizer(), ImagePreprocessor(32), max_length=128)


def examples() -> list[Example]:
    return [Example(str(i), f"Question {'?' * 3 * i}", answer) for i, answer in enumerate(ANSWERS)]


class Frozen(torch.optim.AdamW):
    """An optimiser that keeps the gradients of a step and changes nothing."""

    gradients: tuple[Tensor, ...] = ()

    def step(self, closure: object = None) -> None:  # type: ignore[override]  # the base class returns the closure's loss
        self.gradients = tuple(
            p.grad.clone() for group in self.param_groups for p in group["params"] if p.grad is not None
        )


def step_of(
    tuned: Any, batches: Sequence[Batch], micro_batch: MicroBatch, said: Callable[[str], None] = print
) -> tuple[float, Tensor]:
    """Return the loss and the gradient of one step."""
    optimizer = Frozen([p for p in tuned.parameters() if p.requires_grad])
    optimise = OptimiserStep(Eager(tuned, torch.device("cpu")), optimizer, micro_batch, None, torch.device("cpu"), said)
    loss = optimise(batches, 0.0, 1)
    return loss, torch.cat([gradient.flatten() for gradient in optimizer.gradients])


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_size_of_a_forward_pass_gives_the_same_step(name: str) -> None:
    tuned = model(name)
    whole, expected = step_of(tuned, collate_micro_batches(examples(), collator(), 6), MicroBatch(6, False))
    by_hand = [tuned.summed_loss(Batch(**collator()([example]))) for example in examples()]
    assert whole == pytest.approx(sum(s.item() for s, _ in by_hand) / sum(n.item() for _, n in by_hand), rel=1e-5)
    for size in (1, 2, 4):
        loss, gradient = step_of(tuned, collate_micro_batches(examples(), collator(), size), MicroBatch(size, False))
        assert loss == pytest.approx(whole, rel=1e-5)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), order=st.permutations(range(6)))
def test_any_division_gives_the_same_step(sizes: list[int], order: list[int]) -> None:
    tuned = model("memvp")
    shuffled = [examples()[i] for i in order]
    whole, expected = step_of(tuned, [Batch(**collator()(examples()))], MicroBatch(6, False))
    parts: list[Batch] = []
    while shuffled:
        size = sizes[len(parts) % len(sizes)]
        parts.append(Batch(**collator()(shuffled[:size])))
        shuffled = shuffled[size:]
    loss, gradient = step_of(tuned, parts, MicroBatch(6, False))
    assert loss == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_batch_that_is_split_keeps_every_sample_and_no_common_padding() -> None:
    whole = Batch(**collator()(examples()))
    parts = whole.split(4)
    assert [len(part.has_image_B) for part in parts] == [4, 2]
    assert all(bool(part.attention_mask_BL.any(dim=0).all()) for part in parts)
    texts = [
        part.input_ids_BL[i][part.attention_mask_BL[i]].tolist() for part in parts for i in range(len(part.has_image_B))
    ]
    assert texts == [whole.input_ids_BL[i][whole.attention_mask_BL[i]].tolist() for i in range(6)]
    assert sum(len(part.facts.label_rows_Q) for part in parts) == len(whole.facts.label_rows_Q)
    assert whole.split(6) == [whole]


TOO_LARGE = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")


class TooLarge:
    """A model that runs out of memory with more than `limit` samples, after it has used random numbers."""

    def __init__(self, tuned: TunedModel, limit: int, error: RuntimeError = TOO_LARGE) -> None:
        self.tuned, self.limit, self.error, self.sizes = tuned, limit, error, list[int]()

    def parameters(self) -> object:
        return self.tuned.parameters()

    def summed_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self.sizes.append(len(batch.has_image_B))
        torch.rand(3)
        if self.sizes[-1] > self.limit:
            raise type(self.error)(*self.error.args)  # each with a traceback of its own
        return self.tuned.summed_loss(batch)


def test_running_out_of_memory_halves_the_forward_pass_and_nothing_else() -> None:
    tuned = model("memvp", dropout=True)
    batches = collate_micro_batches(examples(), collator(), 6)
    states = RandomStates.now()
    model_with_limit, size, said = TooLarge(tuned, 2), MicroBatch.of(None, 6), list[str]()
    loss, gradient = step_of(model_with_limit, batches, size, said.append)
    assert size.size == 2 and model_with_limit.sizes == [6, 3, 2, 2, 2]
    assert said == [
        "out of memory with 6 samples per forward pass; going on with 3",
        "out of memory with 3 samples per forward pass; going on with 2",
    ]
    # The forward passes that failed have left no gradient and have used no random number.
    states.restore()
    expected, expected_gradient = step_of(TooLarge(tuned, 2), batches, MicroBatch(2, automatic=False))
    assert loss == expected and torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_memory_that_torch_does_not_allocate_may_run_out_too(error: RuntimeError) -> None:
    model_with_limit, size = TooLarge(model("memvp"), 3, error), MicroBatch.of(None, 6)
    batches = collate_micro_batches(examples(), collator(), 6)
    if "illegal" in str(error):
        with pytest.raises(RuntimeError, match="illegal"):
            step_of(model_with_limit, batches, size)
        return
    step_of(model_with_limit, batches, size)
    assert model_with_limit.sizes == [6, 3, 3]
    advice = "without --micro-batch a run halves its batches by itself, and --dry-run names further options"
    assert Ending.of(error).error == f"out of memory: {first_line(error)}; {advice}"


def test_a_size_that_is_given_is_kept_and_one_sample_is_not_divided() -> None:
    tuned = model("memvp")
    batches = collate_micro_batches(examples(), collator(), 6)
    for size in (MicroBatch.of(6, 6), MicroBatch(1, automatic=True)):
        with pytest.raises(torch.OutOfMemoryError):
            step_of(TooLarge(tuned, 0), batches, size)


class StoppedElsewhere(Processes):
    """Two processes of which the other one was asked to stop."""

    def sum(self, tensor: Tensor) -> Tensor:
        others = torch.zeros_like(tensor)
        others[-1] = 1
        return tensor + others


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_in_which_another_process_was_asked_to_stop_is_not_made(fails: bool) -> None:
    tuned = tuned_model("memvp", tiny_backbone(vocab_size=300, num_layers=2)).train()
    adam = adamw(tuned, TrainRecipe(), rate=0.01)
    cpu = torch.device("cpu")
    optimise = OptimiserStep(Eager(tuned, cpu), adam, MicroBatch(2, True), None, cpu, print, StoppedElsewhere(0, 2))
    before = {name: p.detach().clone() for name, p in tuned.method.named_parameters()}
    states = RandomStates.now()
    batches = ValueError("no batch") if fails else collate_micro_batches(examples(), collator(), 2)
    with pytest.raises(StopAgreed):
        optimise(batches, 0.01, 1)
    assert torch.equal(RandomStates.now().torch, states.torch) and not adam.state
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in tuned.method.named_parameters())


class DueElsewhere(Processes):
    """Two processes of which the other one finds that a checkpoint is due."""

    def sum(self, tensor: Tensor) -> Tensor:
        others = torch.zeros_like(tensor)
        others[-2] = 1
        return tensor + others


@pytest.mark.parametrize(
    ("processes", "own", "due"), [(DueElsewhere(1, 2), False, True), (ALONE, True, True), (ALONE, False, False)]
)
def test_all_processes_know_whether_a_checkpoint_is_due(processes: Processes, own: bool, due: bool) -> None:
    tuned, cpu = model("memvp"), torch.device("cpu")
    optimizer = Frozen([p for p in tuned.parameters() if p.requires_grad])
    optimise = OptimiserStep(
        Eager(tuned, cpu), optimizer, MicroBatch(2, True), None, cpu, print, processes, checkpoint_due=lambda: own
    )
    optimise(collate_micro_batches(examples(), collator(), 2), 0.01, 1)
    assert optimise.is_checkpoint_due == due


def test_the_size_never_exceeds_the_batch() -> None:
    assert [MicroBatch.of(option, 8).size for option in (None, 2, 8, 99)] == [8, 2, 8, 8]


def test_the_size_never_exceeds_what_one_of_several_processes_has() -> None:
    assert [MicroBatch.of(option, 9, processes=4).size for option in (None, 2, 9)] == [3, 2, 3]
    chosen = [Example(str(i), "a", "b") for i in range(9)]
    for rank in range(4):
        assert len(collate_micro_batches(chosen, collator(), 3, Processes(rank, 4))) == 1


def test_one_process_sends_its_sums_to_no_device() -> None:
    """Each way to a GPU and back would make the host wait for it."""
    tuned, nowhere = model("memvp"), torch.device("meta")
    optimizer = Frozen([p for p in tuned.parameters() if p.requires_grad])
    optimise = OptimiserStep(Eager(tuned, torch.device("cpu")), optimizer, MicroBatch(6, False), None, nowhere, print)
    assert optimise(collate_micro_batches(examples(), collator(), 6), 0.0, 1) > 0


def test_the_mean_is_each_gradient_divided_by_the_tokens() -> None:
    tuned = model("memvp")
    batches = collate_micro_batches(examples(), collator(), 6)
    tuned.zero_grad(set_to_none=True)
    _, tokens = Eager(tuned, torch.device("cpu")).add_gradients(batches[0]).tolist()
    expected = [p.grad / tokens for p in tuned.parameters() if p.grad is not None]
    tuned.zero_grad(set_to_none=True)
    _, gradient = step_of(tuned, batches, MicroBatch(6, False))
    assert torch.equal(gradient, torch.cat([g.flatten() for g in expected]))


def test_the_optimiser_of_a_run_takes_the_mean_over_tokens() -> None:
    """The same step through the real optimiser: parameters end where the gradient of the mean takes them."""
    tuned = tuned_model("memvp", tiny_backbone(vocab_size=300, num_layers=2), **no_dropout("memvp")).train()
    adam = adamw(tuned, TrainRecipe(weight_decay=0))
    optimise = OptimiserStep(
        Eager(tuned, torch.device("cpu")), adam, MicroBatch(2, False), None, torch.device("cpu"), print
    )
    before = tuned.method.memory.prompts.keys.detach().clone()
    optimise(collate_micro_batches(examples(), collator(), 2), 0.01, 1)
    moved = (tuned.method.memory.prompts.keys.detach() - before).abs().max()
    assert float(moved) == pytest.approx(0.01, rel=0.01)  # Adam's first step has the size of the rate
