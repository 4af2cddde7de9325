"""The memory FFN: both forms against the printed formula, gating, sharing and the choice of form."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from methods.adapters import Projector
from methods.memory import (
    FactoredSide,
    Memory,
    PositionPrompts,
    VisualMemory,
    check_memory_length,
    image_gate,
    layer_memories,
)
from tests.backbones import randomise

quick = settings(max_examples=12, deadline=None)
SCALE, LAMBDA = 0.7, 0.6


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    """Sizes of one memory, its flags and which sides take visual entries."""
    size = st.integers(1, 6)
    batch = draw(st.integers(1, 4))
    return {
        "tokens": draw(size),
        "hidden_size": draw(st.integers(1, 12)),
        "vision_width": draw(size),
        "projector_dim": draw(size),
        "patches": draw(size),
        "spare_rows": draw(st.integers(0, 3)),
        "ind": draw(st.lists(st.integers(0, 1), min_size=batch, max_size=batch)),
        "sides": draw(st.tuples(st.booleans(), st.booleans())),
    }


def as_factors(memory: VisualMemory, keys: FactoredSide, values: FactoredSide) -> Memory:
    """The memory that is read without building its matrices."""
    return Memory(keys=keys, values=values, rows_RD=memory.rows(keys.gate_B11.dtype))


def build(case: dict[str, Any]) -> tuple[VisualMemory, Tensor, Tensor, Tensor]:
    """A memory with random weights, an input, fused features of both sides, and `S` of both sides."""
    generator = torch.Generator().manual_seed(0)
    memory = VisualMemory(
        PositionPrompts(case["patches"] + case["spare_rows"], case["hidden_size"], 0.02),
        Projector(case["vision_width"], case["projector_dim"], case["hidden_size"]),
        SCALE,
        dropout=0.5,
    ).eval()
    randomise(memory, std=0.5)
    batch = len(case["ind"])
    x = torch.randn(batch, case["tokens"], case["hidden_size"], generator=generator)
    fused = torch.randn(batch, 2, case["patches"], case["vision_width"], generator=generator)
    return memory, x, fused, F.silu(memory.projector.down(fused))  # type: ignore[union-attr]


def sides(case: dict[str, Any], s_BEJP: Tensor) -> tuple[FactoredSide, FactoredSide]:
    gate = image_gate(torch.tensor(case["ind"]), LAMBDA, torch.float32)
    made = [FactoredSide(s_BEJP[:, i] * gate if used else None, gate) for i, used in enumerate(case["sides"])]
    return made[0], made[1]


def plain(case: dict[str, Any], memory: VisualMemory, x: Tensor, fused: Tensor) -> Tensor:
    """`s·SiLU(x Kᵀ) M`, sample by sample, K and M built row by row."""
    out = []
    for sample, ind in enumerate(case["ind"]):
        built = []
        for side, prompts in enumerate((memory.prompts.keys, memory.prompts.values)):
            rows = [row.clone() for row in prompts]
            if case["sides"][side]:
                for j in range(case["patches"]):
                    rows[j] = rows[j] + LAMBDA * ind * memory.projector(fused[sample, side, j])  # type: ignore[misc]
            built.append(torch.stack(rows))
        scores = x[sample] @ built[0].T
        out.append(SCALE * (scores / (1 + torch.exp(-scores))) @ built[1])
    return torch.stack(out)


@quick
@given(cases())
def test_both_forms_equal_the_printed_formula(case: dict[str, Any]) -> None:
    memory, x, fused, s = build(case)
    keys, values = sides(case, s)
    expected = plain(case, memory, x, fused)
    for form in (as_factors(memory, keys, values), memory.explicit(keys, values)):
        out = memory(x, form)
        assert out.shape == x.shape
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


@quick
@given(cases())
def test_both_forms_have_the_same_gradients(case: dict[str, Any]) -> None:
    memory, x, _, _ = build(case)
    found = []
    for explicit in (False, True):
        memory.zero_grad()
        keys, values = sides(case, build(case)[3].detach())
        memory(
            x, memory.explicit(keys, values) if explicit else as_factors(memory, keys, values)
        ).square().sum().backward()
        found.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in memory.parameters()])
    for factored, explicit_gradient in zip(*found, strict=True):
        torch.testing.assert_close(factored, explicit_gradient, atol=1e-4, rtol=1e-3)


@quick
@given(cases())
def test_without_an_image_only_the_prompts_are_read(case: dict[str, Any]) -> None:
    case = {**case, "ind": [0] * len(case["ind"])}
    memory, x, _, s = build(case)
    scores = x @ memory.prompts.keys.T
    expected = SCALE * F.silu(scores) @ memory.prompts.values
    for keys, values in (sides(case, s), sides(case, 100 * s)):
        torch.testing.assert_close(memory(x, as_factors(memory, keys, values)), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(memory(x, memory.explicit(keys, values)), expected, atol=1e-5, rtol=1e-4)


@quick
@given(cases(), st.randoms(use_true_random=False))
def test_permuting_the_batch_permutes_the_output(case: dict[str, Any], random: Any) -> None:
    memory, x, _, s = build(case)
    order = list(range(len(case["ind"])))
    random.shuffle(order)
    keys, values = sides(case, s)
    shuffled = sides({**case, "ind": [case["ind"][i] for i in order]}, s[order])
    out = memory(x[order], as_factors(memory, shuffled[0], shuffled[1]))
    torch.testing.assert_close(out, memory(x, as_factors(memory, keys, values))[order], atol=1e-6, rtol=1e-5)


def test_dropout_falls_on_the_activations_of_training_only() -> None:
    case = {"tokens": 3, "hidden_size": 5, "vision_width": 4, "projector_dim": 3, "patches": 4, "spare_rows": 2}
    case |= {"ind": [1, 0], "sides": (True, True)}
    memory, x, _, s = build(case)
    keys, values = sides(case, s)
    explicit = memory.explicit(keys, values)
    memory.train()
    for form in (explicit, as_factors(memory, keys, values)):
        torch.manual_seed(3)
        out = memory(x, form)
        torch.manual_seed(3)
        kept = F.dropout(F.silu(x @ explicit.keys_BND.mT), 0.5)  # type: ignore[union-attr]
        torch.testing.assert_close(out, SCALE * kept @ explicit.values_BND)  # type: ignore[operator]


@quick
@given(cases(), st.integers(1, 5))
def test_layers_with_equal_slots_share_one_memory(case: dict[str, Any], layers: int) -> None:
    memory, x, fused, s = build(case)
    gate = image_gate(torch.tensor(case["ind"]), LAMBDA, torch.float32)
    used: list[int | None] = [i if case["sides"][i] else None for i in (0, 1)]
    slots = [(used[0], used[1])] * layers + [(used[1], used[0])]
    made = layer_memories(memory, s, gate, slots, case["tokens"])
    assert len(made) == len(slots)
    assert all(one is made[0] for one in made[:layers])
    torch.testing.assert_close(memory(x, made[0]), plain(case, memory, x, fused), atol=1e-5, rtol=1e-4)
    swapped = {**case, "sides": case["sides"][::-1]}
    torch.testing.assert_close(memory(x, made[-1]), plain(swapped, memory, x, fused.flip(1)), atol=1e-5, rtol=1e-4)


@quick
@given(cases(), st.integers(1, 40))
def test_the_cheaper_form_is_chosen_where_layers_share(case: dict[str, Any], layers: int) -> None:
    memory, _, _, s = build(case)
    chosen = memory.explicit_is_cheaper(*sides(case, s), case["tokens"], layers)
    tokens, patches, width, rank = case["tokens"], case["patches"], case["hidden_size"], case["projector_dim"]
    rows = patches + case["spare_rows"]
    taking = sum(case["sides"])
    read = 2 * tokens * rows * width
    explicit = taking * patches * rank * width + layers * read
    factored = layers * (read + taking * tokens * rank * (width + patches))
    assert chosen == (layers > 1 and taking > 0 and explicit < factored)


def test_a_half_precision_stream_stays_half_precision() -> None:
    case = {"tokens": 3, "hidden_size": 5, "vision_width": 4, "projector_dim": 3, "patches": 4, "spare_rows": 2}
    case |= {"ind": [1, 0], "sides": (True, False)}
    memory, x, fused, _ = build(case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = F.silu(memory.projector.down(fused))  # type: ignore[union-attr]
        gate = image_gate(torch.tensor(case["ind"]), LAMBDA, s.dtype)
        for layers in (1, 50):
            (made, *_) = layer_memories(memory, s, gate, [(0, None)] * layers, 3)
            assert memory(x.bfloat16(), made).dtype == torch.bfloat16


def test_prompts_at_init() -> None:
    torch.manual_seed(0)
    prompts = PositionPrompts(400, 64, std=0.02)
    assert prompts.values.abs().max() == 0
    assert prompts.keys.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_memory_shorter_than_the_patches_is_refused() -> None:
    check_memory_length(16, 16)
    with pytest.raises(ValueError, match=r"memory_length 15 .* 16 patches .* at least 16"):
        check_memory_length(15, 16)
