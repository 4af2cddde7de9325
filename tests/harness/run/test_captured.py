"""Captured training steps without a GPU: their fixed shapes, and the same losses and gradients as eager steps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.run.captured import WARMUP_PASSES, Captured, Shape, capture_graph
from harness.run.execution import Eager, MicroBatch
from harness.run.step import OptimiserStep, TrainingFailedError
from methods import registry
from methods.base import Batch
from methods.tuned import TunedModel
from tests.backbones import no_dropout, tiny_backbone, tuned_model
from tests.folders import byte_tokenizer

CPU = torch.device("cpu")


def batch(lengths: Sequence[int], pictures: Sequence[bool]) -> Batch:
    """Return a batch of texts with these lengths; some samples carry a random image."""
    examples = [Example(str(i), "?" * length, "A" * (1 + i % 3)) for i, length in enumerate(lengths)]
    made = Batch(**Collator(byte_tokenizer(), ImagePreprocessor(32), max_length=256)(examples))
    flags = torch.tensor(pictures)
    images = torch.randn_like(made.images_BCHW) * flags[:, None, None, None]
    return Batch(made.input_ids_BL, made.attention_mask_BL, made.labels_BL, images, flags)


def trained(name: str) -> TunedModel:
    torch.manual_seed(0)
    tuned = tuned_model(name, tiny_backbone(vocab_size=300, num_layers=4), **no_dropout(name)).train()
    with torch.no_grad():
        for parameter in tuned.method.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return tuned


class Emulated:
    """Emulates capture on a CPU: warm-up passes run, and every replay runs the pass again on the same tensors."""

    def __init__(self) -> None:
        self.captures = 0

    def __call__(self, run: Any, pool: Any) -> Any:
        self.captures += 1
        for _ in range(2):
            run()
        return run


def gradients(tuned: TunedModel) -> Tensor:
    # A parameter without a gradient has none in an eager step and a zero in a captured one.
    return torch.cat(
        [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in tuned.method.parameters()]
    )


@pytest.mark.parametrize("name", sorted(registry()))
def test_the_same_loss_and_gradient_as_an_eager_pass(name: str) -> None:
    tuned, capture = trained(name), Emulated()
    captured = Captured(tuned, CPU, MicroBatch(4, automatic=False), capture)
    mixes = ([True, False, True], [False, False], [True, True, True, True], [True])
    for pictures in mixes:
        given = batch([9 + 5 * i for i in range(len(pictures))], pictures)
        tuned.zero_grad(set_to_none=True)
        expected_sums = Eager(tuned, CPU).add_gradients(given)
        expected = gradients(tuned)
        for parameter in tuned.method.parameters():
            parameter.grad = None
        captured.release()
        sums = captured.add_gradients(given)
        torch.testing.assert_close(sums, expected_sums, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradients(tuned), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_batches_of_one_shape_share_a_graph_and_gradients_add_up() -> None:
    tuned, capture = trained("memvp"), Emulated()
    captured = Captured(tuned, CPU, MicroBatch(3, automatic=False), capture)
    batches = [batch([5, 9, 20], [True, False, True]), batch([30, 31], [False, True])]
    expected = sum(Eager(tuned, CPU).add_gradients(part) for part in batches)
    expected_gradient = gradients(tuned)
    tuned.zero_grad(set_to_none=True)
    sums = [captured.add_gradients(part) for part in batches]
    assert capture.captures == 1
    torch.testing.assert_close(sums[0] + sums[1], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(tuned), expected_gradient, rtol=1e-4, atol=1e-6)
    captured.add_gradients(batch([100], [True]))
    assert capture.captures == 2


class TooSmall(Emulated):
    """As `Emulated`, on a device whose memory holds one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Any] = []

    def __call__(self, run: Any, pool: Any) -> Any:
        super().__call__(run, pool)
        if pool == "kept" and self.held:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        self.held.append(run)
        return run


def test_a_graph_that_does_not_fit_beside_the_others_takes_their_place() -> None:
    tuned = tuned_model("memvp", tiny_backbone(vocab_size=300, num_layers=4)).train()  # with dropout
    capture = TooSmall()
    captured = Captured(tuned, CPU, MicroBatch(2, automatic=False), capture, pool="kept")
    captured.add_gradients(batch([5, 9], [True, False]))
    given = batch([100], [True])
    tuned.zero_grad(set_to_none=False)
    torch.manual_seed(3)
    found, gradient = captured.add_gradients(given), gradients(tuned)
    assert capture.captures == 3 and len(captured._graphs) == 1
    tuned.zero_grad(set_to_none=False)
    torch.manual_seed(3)
    assert torch.equal(captured.add_gradients(given), found) and torch.equal(gradients(tuned), gradient)


def test_a_capture_that_fails_changes_nothing() -> None:
    def fail(run: Any, pool: Any) -> Any:
        run()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    tuned = tuned_model("memvp", tiny_backbone(vocab_size=300, num_layers=4)).train()
    captured, given = Captured(tuned, CPU, MicroBatch(2, automatic=False), fail), batch([5], [True])
    state = torch.get_rng_state()
    with pytest.raises(torch.OutOfMemoryError):
        captured.add_gradients(given)
    assert not gradients(tuned).any() and torch.equal(torch.get_rng_state(), state)


def test_the_warm_up_does_not_train_and_uses_no_random_number() -> None:
    tuned = tuned_model("memvp", tiny_backbone(vocab_size=300, num_layers=4)).train()  # with dropout
    captured = Captured(tuned, CPU, MicroBatch(2, automatic=False), Emulated())
    given = batch([5, 9], [True, False])
    torch.manual_seed(3)
    first = captured.add_gradients(given)
    gradient = gradients(tuned)
    tuned.zero_grad(set_to_none=False)
    torch.manual_seed(3)
    again = captured.add_gradients(given)
    assert torch.equal(first, again) and torch.equal(gradient, gradients(tuned))


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=5), data=st.data())
def test_every_tensor_has_the_shape_that_was_asked_for(lengths: list[int], data: st.DataObject) -> None:
    pictures = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    own = batch(lengths, pictures)
    shape = Shape.of(own, 6)
    assert shape.columns % 64 == 0 and shape.labels % 8 == 0
    fixed = own.in_fixed_shape(*shape)
    like = batch([1], [True]).in_fixed_shape(*shape)
    for name, value in (vars(fixed) | vars(fixed.facts)).items():
        if isinstance(value, Tensor):
            other = (vars(like) | vars(like.facts))[name]
            assert (value.shape, value.dtype) == (other.shape, other.dtype), name
    assert (fixed.facts.padding, fixed.all_have_images) == ("right", False)


def test_images_are_copied_only_where_samples_are_added() -> None:
    """On a GPU they are in page-locked memory, and a copy of them would not be."""
    own = batch([5, 9], [True, False])
    assert own.in_fixed_shape(2, 64, 8).images_BCHW.data_ptr() == own.images_BCHW.data_ptr()
    # What a graph reads stays its own, also where no sample is added.
    captured = Captured(trained("memvp"), CPU, MicroBatch(2, automatic=False), Emulated())
    captured.add_gradients(own)
    before = own.images_BCHW.clone()
    captured.add_gradients(batch([6, 7], [True, True]))
    assert torch.equal(own.images_BCHW, before)


def test_gradients_keep_their_memory_from_step_to_step() -> None:
    tuned = trained("memvp")
    micro_batch = MicroBatch(2, automatic=False)
    captured = Captured(tuned, CPU, micro_batch, Emulated())
    optimizer = torch.optim.SGD(list(tuned.method.parameters()), lr=0.0)
    optimise = OptimiserStep(captured, optimizer, micro_batch, None, CPU, print)
    places = []
    for _ in range(3):
        optimise([batch([5, 9], [True, False])], 0.0, 1)
        places.append([p.grad.data_ptr() for p in tuned.method.parameters() if p.grad is not None])
        assert all(not p.grad.any() for p in tuned.method.parameters() if p.grad is not None)
    assert places[0] == places[1] == places[2] and places[0]


def test_a_loss_that_is_not_finite_stops_before_the_optimiser() -> None:
    tuned = trained("memvp")
    micro_batch = MicroBatch(2, automatic=False)
    parameters = list(tuned.method.parameters())
    captured = Captured(tuned, CPU, micro_batch, Emulated())
    optimise = OptimiserStep(captured, torch.optim.SGD(parameters, lr=0.1), micro_batch, None, CPU, print)
    given = [batch([5, 9], [True, False])]
    optimise(given, 0.1, 1)
    with torch.no_grad():
        parameters[0].fill_(float("nan"))
    before = [parameter.clone() for parameter in parameters[1:]]
    with pytest.raises(TrainingFailedError, match="loss is nan at step 2"):
        optimise(given, 0.1, 2)
    assert all(torch.equal(one, two) for one, two in zip(parameters[1:], before, strict=True))


def test_all_captures_use_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each stream that it sees, cuBLAS keeps memory for as long as the process lives."""
    made, entered, captured = list[object](), list[object](), list[object]()

    class Stream:
        def __init__(self, *_: object) -> None:
            made.append(self)

        def wait_stream(self, other: object) -> None:
            pass

    @contextmanager
    def stream(entering: object) -> Iterator[None]:
        entered.append(entering)
        yield

    @contextmanager
    def graph(*_: object, stream: object = None, **__: object) -> Iterator[None]:
        captured.append(stream)
        yield

    main = Stream()
    for name, replacement in {
        "Stream": Stream,
        "stream": stream,
        "graph": graph,
        "current_stream": lambda: main,
        "current_device": lambda: 7,
        "synchronize": lambda: None,
        "CUDAGraph": lambda: SimpleNamespace(replay=None),
    }.items():
        monkeypatch.setattr(torch.cuda, name, replacement)
    runs: list[int] = []
    for _ in range(2):
        capture_graph(lambda: runs.append(1), None)
    assert len(made) == 2 and set(entered) == set(captured) == {made[1]}
    assert len(runs) == 2 * (WARMUP_PASSES + 1)
