"""The projector and the parallel CLIP adapter, alone and inside a vision tower."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.adapters import ParallelAdapter, Projector, attach_parallel_adapters
from tests.backbones import SMALL, randomise, tiny_backbone
from tests.methods import plain

sizes = st.integers(1, 8)


def noise(*shape: int) -> Tensor:
    """Return a normally distributed tensor, the same for the same shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@settings(max_examples=10)
@given(sizes, sizes, sizes, sizes)
def test_projector_equals_its_formula(vision_width: int, rank: int, hidden_size: int, rows: int) -> None:
    projector = Projector(vision_width, rank, hidden_size)
    randomise(projector, std=0.7)
    x = noise(2, rows, vision_width)
    params = {f"memory.projector.{name}": value for name, value in projector.named_parameters()}
    out = projector(x)
    assert out.shape == (2, rows, hidden_size)
    torch.testing.assert_close(out, plain.project(x, params), atol=1e-6, rtol=1e-5)


def test_projector_has_its_published_size() -> None:
    assert sum(p.numel() for p in Projector(1024, 128, 4096).parameters()) == 659_584


def test_projector_starts_xavier_uniform_without_biases() -> None:
    torch.manual_seed(0)
    projector = Projector(1024, 128, 4096)
    for layer in (projector.down, projector.up):
        assert layer.bias.abs().max() == 0
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound


@settings(max_examples=10)
@given(sizes, sizes, sizes)
def test_parallel_adapter_starts_at_zero(width: int, bottleneck: int, rows: int) -> None:
    adapter = ParallelAdapter(width, bottleneck, scale=0.3, dropout=0.5).eval()
    assert adapter(noise(2, rows, width)).abs().max() == 0


def test_parallel_adapter_starts_with_the_published_standard_deviation() -> None:
    torch.manual_seed(0)
    assert ParallelAdapter(1024, 12).down.weight.std().item() == pytest.approx(0.0180, abs=3e-4)


def test_parallel_adapter_has_no_biases() -> None:
    assert not [name for name, _ in ParallelAdapter(4, 2).named_parameters() if "bias" in name]


@settings(max_examples=10)
@given(sizes, sizes, sizes)
def test_parallel_adapter_is_a_scaled_exact_gelu_bottleneck(width: int, bottleneck: int, rows: int) -> None:
    adapter = ParallelAdapter(width, bottleneck, scale=0.3, dropout=0.5).eval()
    u = noise(2, rows, width)
    randomise(adapter, std=0.7)
    hidden = u @ adapter.down.weight.T
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(adapter(u), 0.3 * gelu @ adapter.up.weight.T, atol=1e-6, rtol=1e-5)


def test_parallel_adapter_drops_bottleneck_entries_in_training_only() -> None:
    adapter = ParallelAdapter(4, 6, scale=1.0, dropout=0.5)
    randomise(adapter, std=0.7)
    u = noise(2, 4)
    torch.manual_seed(5)
    out = adapter.train()(u)
    torch.manual_seed(5)
    kept = nn.functional.dropout(nn.functional.gelu(adapter.down(u)), 0.5)
    torch.testing.assert_close(out, adapter.up(kept))
    assert torch.equal(adapter.eval()(u), adapter(u))


@pytest.mark.parametrize("num_blocks", [0, 5, 8])
def test_adapters_at_init_leave_the_towers_features_unchanged(num_blocks: int) -> None:
    images = noise(2, 3, 32, 32)
    bare, wrapped = tiny_backbone().vision, tiny_backbone().vision
    adapters = attach_parallel_adapters(wrapped, num_blocks, SMALL["adapter_dim"], 0.1, 0.1)
    assert len(adapters) == num_blocks
    every = list(range(1, bare.num_layers + 1))
    for normalize in (True, False):
        pairs = zip(
            bare.features(images, every, normalize=normalize),
            wrapped.features(images, every, normalize=normalize),
            strict=True,
        )
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("num_blocks", [5, 8])
def test_features_with_adapters_equal_the_plain_tower(num_blocks: int) -> None:
    images = noise(2, 3, 32, 32)
    bare, wrapped = tiny_backbone().vision, tiny_backbone().vision
    adapters = attach_parallel_adapters(wrapped, num_blocks, 4, 0.1, 0.1).eval()
    randomise(adapters, std=0.7)
    params = {f"vision_adapters.{name}": value for name, value in adapters.named_parameters()}
    config = type("Config", (), {"adapter_scale": 0.1})
    found = wrapped.features(images, list(range(1, 9)), normalize=True)
    for sample in range(2):
        expected = plain.features(bare, images[sample], params, config)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[sample], theirs, atol=2e-5, rtol=1e-4)
