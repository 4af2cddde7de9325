"""DEHVF's queries, fuser weights and groups against the printed formulas."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from methods.checks import check_divisible
from methods.fuser import (
    HierarchicalVisualFuser,
    InputEmbeddingNetwork,
    LearnableQueries,
    fuse,
    layer_groups,
    visual_groups,
)
from tests.backbones import randomise
from tests.methods import plain

quick = settings(max_examples=10)


@st.composite
def cases(draw: Any) -> dict[str, int]:
    """Draw the sizes of one call of the fuser."""
    groups = draw(st.integers(1, 4))
    return {
        "batch": draw(st.integers(1, 3)),
        "groups": groups,
        "layers": draw(st.integers(groups, 11)),
        "sides": draw(st.integers(1, 2)),
        "features": draw(st.integers(1, 5)),
        "width": draw(st.integers(1, 9)),
        "heads": (heads := draw(st.integers(1, 3))),
        "dim": heads * draw(st.integers(1, 4)),
        "blocks": draw(st.integers(0, 3)),
    }


def build(case: dict[str, int]) -> tuple[HierarchicalVisualFuser, Tensor, Tensor]:
    """Return a fuser with random weights, its queries and the CLS tokens."""
    generator = torch.Generator().manual_seed(1)
    fuser = HierarchicalVisualFuser(case["width"], case["dim"], case["blocks"], case["heads"], case["groups"])
    randomise(fuser, std=0.7)
    queries = torch.randn(case["layers"], case["sides"], case["dim"], generator=generator)
    cls = torch.randn(case["batch"], case["groups"], case["features"], case["width"], generator=generator)
    return fuser, queries, cls


@quick
@given(cases())
def test_weights_are_a_distribution_for_each_layer_side_and_sample(case: dict[str, int]) -> None:
    fuser, queries, cls = build(case)
    for scale in (1.0, 1e3):
        weights = fuser(queries, scale * cls)
        assert weights.shape == (case["batch"], case["layers"], case["sides"], case["features"])
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@quick
@given(cases())
def test_weights_equal_the_printed_formula(case: dict[str, int]) -> None:
    fuser, queries, cls = build(case)
    config = SimpleNamespace(fuser_blocks=case["blocks"], fuser_heads=case["heads"])
    params = {f"fuser.{name}": value for name, value in fuser.named_parameters()}
    weights = fuser(queries, cls)
    for sample in range(case["batch"]):
        for layer in range(case["layers"]):
            group = layer * case["groups"] // case["layers"]
            for side in range(case["sides"]):
                expected = plain.fusion_weights(queries[layer, side], cls[sample, group], params, config)
                torch.testing.assert_close(weights[sample, layer, side], expected, atol=1e-5, rtol=1e-4)


@quick
@given(cases(), st.randoms(use_true_random=False))
def test_permuting_the_batch_permutes_the_weights(case: dict[str, int], random: Any) -> None:
    fuser, queries, cls = build(case)
    order = list(range(case["batch"]))
    random.shuffle(order)
    torch.testing.assert_close(fuser(queries, cls[order]), fuser(queries, cls)[order], atol=1e-6, rtol=1e-5)


@quick
@given(cases(), st.integers(1, 4))
def test_fuse_is_the_weighted_sum_over_the_layers_group(case: dict[str, int], patches: int) -> None:
    generator = torch.Generator().manual_seed(2)
    shape = [case[name] for name in ("batch", "layers", "sides", "features")]
    weights = torch.rand(*shape, generator=generator)
    blocks = case["groups"] * case["features"]
    hidden = torch.randn(case["batch"], blocks, patches, 3, generator=generator)
    # Groups of any blocks; a block may be in a group twice.
    groups = torch.randint(blocks, (case["groups"], case["features"]), generator=generator)
    out = fuse(weights, F.one_hot(groups, blocks).float(), hidden)
    assert out.shape[1] == case["layers"] * case["sides"]
    for layer in range(case["layers"]):
        group = hidden[:, groups[layer * case["groups"] // case["layers"]]]
        for side in range(case["sides"]):
            expected = sum(weights[:, layer, side, k, None, None] * group[:, k] for k in range(case["features"]))
            torch.testing.assert_close(out[:, layer * case["sides"] + side], expected, atol=1e-5, rtol=1e-4)


@quick
@given(st.integers(1, 6), st.integers(1, 2), st.integers(1, 8), st.booleans())
def test_queries_equal_the_printed_formula(layers: int, sides: int, dim: int, position: bool) -> None:
    network = InputEmbeddingNetwork(layers, sides, dim, position)
    randomise(network, std=0.7)
    queries = network()
    assert queries.shape == (layers, sides if position else 1, dim)
    config = SimpleNamespace(query="network", separate_queries=position)
    params = {f"queries.{name}": value for name, value in network.named_parameters()}
    for layer in range(layers):
        for side in range(queries.shape[1]):
            torch.testing.assert_close(queries[layer, side], plain.query(layer, side, params, config))


def test_learnable_queries_are_free_for_each_layer_and_side() -> None:
    assert [tuple(p.shape) for p in LearnableQueries(3, 2, 5).parameters()] == [(3, 2, 5)]
    assert LearnableQueries(3, 2, 5)().shape == (3, 2, 5)


@quick
@given(st.integers(1, 6), st.integers(1, 6))
def test_groups_share_out_the_blocks_and_end_with_the_penultimate(groups: int, size: int) -> None:
    made = visual_groups(groups * size, groups)
    assert len(made) == groups
    assert [block for group in made for block in group[:-1]] == list(range(1, groups * size + 1))
    assert all(group[-1] == groups * size - 1 for group in made)


def test_the_groups_of_vit_l() -> None:
    made = visual_groups(24, 4)
    assert made[0] == [1, 2, 3, 4, 5, 6, 23]
    assert made[3] == [19, 20, 21, 22, 23, 24, 23]


@quick
@given(st.integers(1, 40), st.integers(1, 40))
def test_every_group_is_read_by_layers_that_follow_each_other(layers: int, groups: int) -> None:
    if layers < groups:
        with pytest.raises(ValueError, match=f"set num_groups to at most {layers}"):
            layer_groups(layers, groups)
        return
    read = layer_groups(layers, groups)
    assert read == sorted(read) and len(read) == layers
    sizes = [read.count(group) for group in range(groups)]
    assert sum(sizes) == layers and min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


@quick
@given(st.integers(1, 40), st.integers(1, 40))
def test_only_divisors_are_accepted_as_group_counts(count: int, groups: int) -> None:
    if count % groups == 0:
        check_divisible("layers", count, groups, "num_groups")
        return
    divisors = [d for d in range(1, count + 1) if count % d == 0]
    with pytest.raises(ValueError, match="choose num_groups among") as error:
        check_divisible("layers", count, groups, "num_groups")
    assert str(divisors) in str(error.value) and str(count) in str(error.value)
