"""An FFN whose key-value memory takes visual entries (MemVP, DEHVF).

With projected visual features `f(V) = S W2ᵀ + b2`, `S = SiLU(W1 V + b1)`, position prompts `P_k`, `P_v`, and
the has-image flag, the memory of one layer is

    K = λ · ind · [f(V_k); 0] + P_k        M = λ · ind · [f(V_v); 0] + P_v        both N × D
    out(x) = s · dropout(SiLU(x Kᵀ)) M

MemVP (Jie et al. 2024, arXiv:2405.05615), DEHVF Eq. (10)-(13). `K` and `M` need not exist: `methods.memory_forms` has
the forms of equal output, and `layer_memories` picks the cheapest for each side.

Shape suffixes: B batch, T tokens, D hidden_size, N memory rows, J patches (J <= N), P projector width,
R = N + P + 1 rows put together, E fused features; 1 a broadcast dimension.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from methods.adapters import Projector
from methods.base import Backbone, MethodConfig, VisualFeatures
from methods.cost import Entry, TokenCost, matmul
from methods.decoder import AdaptedDecoderLayer
from methods.memory_forms import (
    BuiltSide,
    FactoredSide,
    MemorySide,
    PromptSide,
    RebuiltSide,
    SideWeights,
    cheapest_form,
)


class MemoryConfig(MethodConfig):
    """What every method with such a memory can choose; the defaults are MemVP's published 7B run's."""

    memory_length: int = Field(320, ge=1, description="memory rows N: 320 at 7B, 400 at 13B")
    projector_dim: int = Field(128, ge=1, description="width between the projector's two layers")
    visual_scale: float = Field(0.01, description="λ, the factor on projected visual features")
    memory_scale: float = Field(0.1, description="s, the factor on the memory's output")
    memory_dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the memory's activations")
    prompt_std: float = Field(0.02, ge=0, description="standard deviation of P_k at init")
    adapter_dim: int = Field(12, ge=1, description="bottleneck of the parallel CLIP adapters")
    adapter_scale: float = Field(0.1, description="factor on the CLIP adapters' output")
    adapter_dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside the CLIP adapters")


@dataclass(frozen=True)
class Memory:
    """The memory of one layer, or of all layers that share it: `K` and `M`, each in some form."""

    keys: MemorySide
    values: MemorySide


class PositionPrompts(nn.Module):
    """`P_k ~ std · N(0, 1)` and `P_v = 0`, both `N×D`, shared by all layers.

    Args:
        length: memory rows (N), "length of position embedding" in DEHVF's Table 5.
        hidden_size: D.
        std: standard deviation of `P_k` at init (0.02 in the published runs).
    """

    def __init__(self, length: int, hidden_size: int, std: float) -> None:
        super().__init__()
        self.keys = nn.Parameter(std * torch.randn(length, hidden_size))
        self.values = nn.Parameter(torch.zeros(length, hidden_size))


def check_memory_length(length: int, num_patches: int) -> None:
    """Raise ValueError when the visual rows do not fit into the memory."""
    if length < num_patches:
        raise ValueError(
            f"memory_length {length} is shorter than the {num_patches} patches of the vision tower; "
            f"set memory_length to at least {num_patches}"
        )


class VisualMemory(nn.Module):
    """The memory of every layer: prompts and projector, applied to a layer's FFN input.

    Args:
        prompts: position prompts, shared by all layers.
        projector: the one projector; None when no visual entries are used at all.
        scale: s, the factor on the output.
        dropout: probability of dropping an activation.
    """

    def __init__(self, prompts: PositionPrompts, projector: Projector | None, scale: float, dropout: float) -> None:
        super().__init__()
        self.prompts = prompts
        self.projector = projector
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, memory: Memory) -> Tensor:
        """`s · dropout(SiLU(x Kᵀ)) M`, `B×T×D`."""
        a_BTN = self.dropout(F.silu(memory.keys.scores(x_BTD)))
        return memory.values.read(a_BTN) * self.scale

    def side_weights(self, dtype: torch.dtype) -> tuple[SideWeights, SideWeights]:
        """What keys and values of all layers share, in `dtype`; asked for where there is a projector."""
        assert self.projector is not None, "visual entries come through the projector"
        weight_DP, bias_D = (p.to(dtype) for p in (self.projector.up.weight, self.projector.up.bias))
        keys_ND, values_ND = (p.to(dtype) for p in (self.prompts.keys, self.prompts.values))
        return SideWeights(keys_ND, weight_DP, bias_D), SideWeights(values_ND, weight_DP, bias_D)


class MemoryRead(nn.Module):
    """Beside the FFN of one layer: reads this layer's memory.

    Args:
        memory: the module that all layers share.
        layer_idx: index of this layer.
    """

    def __init__(self, memory: VisualMemory, layer_idx: int) -> None:
        super().__init__()
        self.memory = memory
        self.layer_idx = layer_idx

    def forward(self, x_BTD: Tensor, memories: Sequence[Memory]) -> Tensor:
        """`B×T×D` to `B×T×D`; `memories` holds one memory a layer."""
        return self.memory(x_BTD, memories[self.layer_idx])


def attach_memory(backbone: Backbone, memory: VisualMemory) -> None:
    """Put a read of `memory` beside the FFN of every decoder layer; layers then take `memories=[…]`."""
    layers = backbone.llm.model.layers
    for index, layer in enumerate(layers):
        layers[index] = AdaptedDecoderLayer(layer, beside_ffn=MemoryRead(memory, index))


def layer_memories(
    memory: VisualMemory,
    visual: VisualFeatures,
    visual_scale: float,
    slots: Sequence[tuple[int | None, int | None]],
    num_tokens: int,
) -> list[Memory]:
    """One memory a layer, each side in the form that costs fewest multiply-adds; layers with equal slots share them.

    Args:
        memory: the module that reads them.
        visual: `has_image_B`, and `s_BEJP`, `SiLU(W1 V + b1)` of each of E fused features V.
        visual_scale: λ.
        slots: for each layer which feature feeds its keys and its values; None where only the prompt does.
        num_tokens: tokens a sample that will be run through the memories.
    """
    used = {slot for pair in slots for slot in pair if slot is not None}
    if not used:
        alone = Memory(PromptSide(memory.prompts.keys), PromptSide(memory.prompts.values))
        return [alone] * len(slots)
    s_BEJP = visual["s_BEJP"]
    dtype = s_BEJP.dtype
    gate_B11 = image_gate(visual["has_image_B"], visual_scale, dtype)
    # Slot first, so that each is in one piece; a slice of its own for each would fill a gradient of all for each.
    features = (s_BEJP * gate_B11[:, None]).transpose(0, 1).contiguous().unbind()
    keys, values = (
        _sides(features, gate_B11, [pair[index] for pair in slots], num_tokens, weights)
        for index, weights in enumerate(memory.side_weights(dtype))
    )
    return [Memory(keys[key], values[value]) for key, value in slots]


def _sides(
    features: Sequence[Tensor], gate_B11: Tensor, slots: Sequence[int | None], num_tokens: int, weights: SideWeights
) -> dict[int | None, MemorySide]:
    """One side of each distinct slot."""
    sides: dict[int | None, MemorySide] = {}
    for slot, sharing in Counter(slots).items():
        if slot is None:
            sides[slot] = PromptSide(weights.prompts_ND)
            continue
        s_BJP = features[slot]
        patches, hidden_size = s_BJP.shape[1], weights.prompts_ND.shape[1]
        form = cheapest_form(
            num_tokens,
            sharing,
            patches,
            hidden_size,
            with_backward=torch.is_grad_enabled(),
            on_gpu=s_BJP.is_cuda,
        )
        match form:
            case "built":
                sides[slot] = BuiltSide(weights.matrix(s_BJP, gate_B11))
            case "rebuilt":
                sides[slot] = RebuiltSide(s_BJP, gate_B11, weights)
            case "factored":
                sides[slot] = FactoredSide(s_BJP, gate_B11, weights.rows_RD, len(weights.prompts_ND))
    return sides


def memory_cost(
    memory: VisualMemory, slots: Sequence[tuple[int | None, int | None]], samples: int, tokens: int, patches: int
) -> TokenCost:
    """The products of building and reading every layer's memory, in the form that `layer_memories` picks off a GPU.

    Args:
        memory: the module that all layers share, on the meta device.
        slots: as given to `layer_memories`.
        samples: batch size.
        tokens: columns of this forward.
        patches: visual rows of each sample.
    """
    used = {slot for pair in slots for slot in pair if slot is not None}
    rank = memory.projector.down.out_features if memory.projector is not None else 0
    visual = {
        "s_BEJP": torch.empty(samples, 1 + max(used, default=-1), patches, rank, device="meta"),
        "has_image_B": torch.empty(samples, device="meta"),
    }
    # Only shapes count, so any λ will do.
    memories = layer_memories(memory, visual, 1.0, slots, tokens)
    width = memory.prompts.keys.shape[1]
    shared = {id(side) for given in memories for side in (given.keys, given.values) if isinstance(side, BuiltSide)}
    return TokenCost(
        # The first FFN is the first place that sees anything trained, and it gives it to the next layer.
        entry=Entry(0, "ffn"),
        prepared=[matmul("memory.build", len(shared) * samples * patches, rank, width, gradients=2)],
        products=[
            product
            for layer, given in enumerate(memories)
            # The first layer's input needs no gradient; the activations always do.
            for side, left_grad in ((given.keys, layer > 0), (given.values, True))
            for product in side.products(samples * tokens, left_grad=left_grad)
        ],
    )


def image_gate(has_image_B: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """`λ · ind` as `B×1×1`."""
    return scale * has_image_B.to(dtype)[:, None, None]
