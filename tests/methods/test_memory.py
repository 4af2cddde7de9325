"""The memory of an FFN: every form against the printed formula, the has-image flag, sharing, the choice of form."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from methods import memory as memory_module
from methods.adapters import Projector
from methods.memory import (
    Memory,
    PositionPrompts,
    VisualMemory,
    check_memory_length,
    image_gate,
    layer_memories,
)
from methods.memory_forms import (
    GPU_BUILD,
    BuiltSide,
    FactoredSide,
    Form,
    LayerSide,
    MemorySide,
    PromptSide,
    cheapest_form,
)
from tests.backbones import randomise

quick = settings(max_examples=12)
FORMS: tuple[Form, ...] = ("built", "kept", "rebuilt", "factored")
SCALE, LAMBDA = 0.7, 0.6
FIXED: dict[str, Any] = {
    "tokens": 3,
    "hidden_size": 5,
    "vision_width": 4,
    "projector_dim": 3,
    "patches": 4,
    "spare_rows": 2,
    "ind": [1, 0],
}
"""The sizes of one memory, for tests that need no others; `sides` is to be added."""


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    """Draw the sizes of one memory, the has-image flags, and which sides take visual entries."""
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


def build(case: dict[str, Any]) -> tuple[VisualMemory, Tensor, Tensor, Tensor]:
    """Return a memory with random weights, an input, the fused features of both sides, and their `S`."""
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
    return memory, x, fused, F.silu(memory.projector.down(fused))


def made(case: dict[str, Any], memory: VisualMemory, s_BEJP: Tensor, form: Form) -> Memory:
    """Return the memory of one layer in a form. The keys come from feature 0 and the values from feature 1."""
    gate = image_gate(torch.tensor(case["ind"]), LAMBDA, torch.float32)
    found: list[MemorySide] = []
    for index, weights in enumerate(memory.side_weights(torch.float32)):
        s_BJR = F.pad(s_BEJP[:, index], (0, 1), value=1.0) * gate
        if not case["sides"][index]:
            found.append(PromptSide(weights.prompts_ND))
        elif form == "built":
            found.append(BuiltSide(weights.matrix(s_BJR)))
        elif form == "factored":
            found.append(FactoredSide(F.pad(s_BJR, (0, 0, 0, case["spare_rows"])), weights.rows_MD()))
        else:
            found.append(LayerSide(s_BJR, weights, kept=form == "kept"))
    return Memory(*found)


def visual(case: dict[str, Any], s_BEJP: Tensor) -> dict[str, Tensor]:
    """Return what a method's encoding gives to `layer_memories`."""
    return {"s_BEJP": s_BEJP, "has_image_B": torch.tensor(case["ind"])}


def plain(case: dict[str, Any], memory: VisualMemory, x: Tensor, fused: Tensor) -> Tensor:
    """Return `s·SiLU(x Kᵀ) M`, computed sample by sample, with K and M built row by row."""
    out = []
    for sample, ind in enumerate(case["ind"]):
        built = []
        for side, prompts in enumerate((memory.prompts.keys, memory.prompts.values)):
            rows = [row.clone() for row in prompts]
            if case["sides"][side]:
                for j in range(case["patches"]):
                    rows[j] = rows[j] + LAMBDA * ind * memory.projector(fused[sample, side, j])
            built.append(torch.stack(rows))
        scores = x[sample] @ built[0].T
        out.append(SCALE * (scores / (1 + torch.exp(-scores))) @ built[1])
    return torch.stack(out)


@quick
@given(cases(), st.integers(1, 3))
def test_rows_of_zeros_change_nothing(case: dict[str, Any], filling: int) -> None:
    """On a GPU, rows of zeros fill the rows `[P; W⁺]` up to a multiple of `GPU_ROWS`."""
    memory, x, _, s_BEJP = build(case)
    gate = image_gate(torch.tensor(case["ind"]), LAMBDA, torch.float32)
    weights, _ = memory.side_weights(torch.float32)
    s_BNR = F.pad(F.pad(s_BEJP[:, 0], (0, 1), value=1.0) * gate, (0, 0, 0, case["spare_rows"]))
    side = FactoredSide(s_BNR, weights.rows_MD())
    filled = FactoredSide(F.pad(s_BNR, (0, filling), value=1.0), F.pad(weights.rows_MD(), (0, 0, 0, filling)))
    scores = side.scores(x)
    torch.testing.assert_close(filled.scores(x), scores)
    torch.testing.assert_close(filled.read(scores), side.read(scores))


@quick
@given(cases())
def test_every_form_equals_the_printed_formula(case: dict[str, Any]) -> None:
    memory, x, fused, s = build(case)
    expected = plain(case, memory, x, fused)
    for form in FORMS:
        out = memory(x, made(case, memory, s, form))
        assert out.shape == x.shape
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


@quick
@given(cases())
def test_every_form_has_the_same_gradients(case: dict[str, Any]) -> None:
    memory, x, fused, _ = build(case)
    found = []
    for form in FORMS:
        memory.zero_grad()
        given_x = x.clone().requires_grad_()
        s = F.silu(memory.projector.down(fused))
        memory(given_x, made(case, memory, s, form)).square().sum().backward()
        leaves = [given_x, *memory.parameters()]
        found.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in leaves])
    for gradients in found[1:]:
        for expected, gradient in zip(found[0], gradients, strict=True):
            torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-3)


@quick
@given(cases())
def test_without_an_image_only_the_prompts_are_read(case: dict[str, Any]) -> None:
    case = {**case, "ind": [0] * len(case["ind"])}
    memory, x, _, s = build(case)
    scores = x @ memory.prompts.keys.T
    expected = SCALE * F.silu(scores) @ memory.prompts.values
    for features in (s, 100 * s):
        for form in FORMS:
            torch.testing.assert_close(memory(x, made(case, memory, features, form)), expected, atol=1e-5, rtol=1e-4)


@quick
@given(cases(), st.randoms(use_true_random=False), st.sampled_from(FORMS))
def test_permuting_the_batch_permutes_the_output(case: dict[str, Any], random: Any, form: Form) -> None:
    memory, x, _, s = build(case)
    order = list(range(len(case["ind"])))
    random.shuffle(order)
    shuffled = {**case, "ind": [case["ind"][i] for i in order]}
    out = memory(x[order], made(shuffled, memory, s[order], form))
    torch.testing.assert_close(out, memory(x, made(case, memory, s, form))[order], atol=1e-6, rtol=1e-5)


def test_dropout_falls_on_the_activations_of_training_only() -> None:
    case = {**FIXED, "sides": (True, True)}
    memory, x, _, s = build(case)
    built = made(case, memory, s, "built")
    assert isinstance(built.keys, BuiltSide) and isinstance(built.values, BuiltSide)
    memory.train()
    for form in FORMS:
        torch.manual_seed(3)
        out = memory(x, made(case, memory, s, form))
        torch.manual_seed(3)
        kept = F.dropout(F.silu(x @ built.keys.matrix_BND.mT), 0.5)
        torch.testing.assert_close(out, SCALE * kept @ built.values.matrix_BND)


@quick
@given(cases(), st.integers(1, 5))
def test_layers_with_equal_slots_share_one_memory(case: dict[str, Any], layers: int) -> None:
    memory, x, fused, s = build(case)
    used: list[int | None] = [i if case["sides"][i] else None for i in (0, 1)]
    slots = [(used[0], used[1])] * layers + [(used[1], used[0])]
    chosen = layer_memories(memory, visual(case, s), LAMBDA, slots, case["tokens"])
    assert len(chosen) == len(slots)
    assert all(one.keys is chosen[0].keys and one.values is chosen[0].values for one in chosen[:layers])
    torch.testing.assert_close(memory(x, chosen[0]), plain(case, memory, x, fused), atol=1e-5, rtol=1e-4)
    swapped = {**case, "sides": case["sides"][::-1]}
    torch.testing.assert_close(memory(x, chosen[-1]), plain(swapped, memory, x, fused.flip(1)), atol=1e-5, rtol=1e-4)


SIZE = st.integers(1, 60)


@given(SIZE, st.integers(1, 40), SIZE, st.integers(0, 20), SIZE, st.integers(1, 20), st.booleans(), st.booleans())
def test_the_form_of_fewest_multiply_adds_is_chosen(
    tokens: int, layers: int, patches: int, spare: int, width: int, rank: int, with_backward: bool, may_keep: bool
) -> None:
    """A matrix of a single layer that may not be kept is built twice where there is a backward pass."""
    passes, length = 3 if with_backward else 1, patches + spare
    build = patches * rank * width
    factored = passes * layers * (tokens * rank * width + tokens * rank * length)
    alone = "kept" if may_keep else "rebuilt"
    built = passes * build + (build if layers == 1 and with_backward and not may_keep else 0)
    for on_gpu, factor in ((False, 1), (True, GPU_BUILD)):
        chosen = cheapest_form(
            tokens, layers, patches, length, width, with_backward=with_backward, may_keep=may_keep, on_gpu=on_gpu
        )
        assert chosen == ("factored" if factored <= factor * built else alone if layers == 1 else "built")


@pytest.mark.parametrize(("limit", "matrices"), [(None, 2), (0, 0)])
def test_matrices_are_kept_for_the_backward_pass_where_memory_allows(
    limit: int | None, matrices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = {**FIXED, "tokens": 40, "sides": (True, True)}
    memory, x, _, s = build(case)
    if limit is not None:
        monkeypatch.setattr(memory_module, "KEPT_BYTES", limit)
    (chosen,) = layer_memories(memory, visual(case, s), LAMBDA, [(0, 1)], case["tokens"])
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept = memory(x.requires_grad_(), chosen)
    assert kept.requires_grad
    size = len(x) * memory.prompts.keys.numel()
    assert len({tensor.data_ptr() for tensor in saved if tensor.numel() == size}) == matrices


@pytest.mark.parametrize(("device", "form", "rows"), [("cpu", LayerSide, 0), ("cuda", FactoredSide, 16)])
def test_on_a_gpu_the_form_is_its_own_and_its_rows_are_filled(device: str, form: type, rows: int) -> None:
    """Only shapes are computed, so no GPU is needed. With 5 tokens and 4 patches, the factored form is cheaper on a GPU
    and building is cheaper on a CPU."""
    with FakeTensorMode(), torch.device(device), torch.no_grad():
        memory = VisualMemory(PositionPrompts(6, 7, 0.02), Projector(5, 3, 7), SCALE, dropout=0.0)
        encoded = {"s_BEJP": torch.randn(2, 2, 4, 3), "has_image_B": torch.ones(2, dtype=torch.bool)}
        (chosen,) = layer_memories(memory, encoded, LAMBDA, [(0, 1)], num_tokens=5)
        for side in (chosen.keys, chosen.values):
            # 6 prompts, 3 rows of the projector and its bias are 10 rows; the next multiple of 8 is 16.
            assert isinstance(side, form) and len(getattr(side, "rows_MD", ())) == rows
        x_BTD = torch.randn(2, 5, 7)
        assert memory(x_BTD, chosen).shape == x_BTD.shape


def test_a_half_precision_stream_stays_half_precision() -> None:
    case = {**FIXED, "sides": (True, False)}
    memory, x, fused, _ = build(case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = F.silu(memory.projector.down(fused))
        for layers in (1, 50):
            (chosen, *_) = layer_memories(memory, visual(case, s), LAMBDA, [(0, None)] * layers, 3)
            assert memory(x.bfloat16(), chosen).dtype == torch.bfloat16


def test_prompts_at_init() -> None:
    torch.manual_seed(0)
    prompts = PositionPrompts(400, 64, std=0.02)
    assert prompts.values.abs().max() == 0
    assert prompts.keys.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_memory_as_long_as_the_patches_is_accepted() -> None:
    check_memory_length(16, 16)


def test_a_memory_shorter_than_the_patches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"memory_length 15 .* 16 patches .* at least 16"):
        check_memory_length(15, 16)
