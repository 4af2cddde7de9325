"""An FFN whose key-value memory takes visual entries (MemVP, DEHVF).

With projected visual features `f(V) = S W2ᵀ + b2`, `S = SiLU(W1 V + b1)`, position prompts `P_k`, `P_v`, and
the has-image flag, the memory of one layer is

    K = λ · ind · [f(V_k); 0] + P_k        M = λ · ind · [f(V_v); 0] + P_v        both N × D
    out(x) = s · dropout(SiLU(x Kᵀ)) M

MemVP (Jie et al. 2024, arXiv:2405.05615), DEHVF Eq. (10)-(13). Apart from the prompts, `K` and `M` have rank P,
so `K` need not exist: `x f(V)ᵀ = (x W2) Sᵀ + x·b2` and `a f(V) = (a S) W2ᵀ + (Σ a) b2`. There the products with the
prompts, W2 and b2 are one, with their rows put together: `[P; W2ᵀ; b2]`. Both forms are here and give the same output;
`layer_memories` counts their multiply-adds and picks one.

Shape suffixes: B batch, T tokens, D hidden_size, N memory rows, J patches (J <= N), P projector width, E distinct
fused features, R = N + P + 1 rows put together; 1 a broadcast dimension.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from methods.adapters import Projector
from methods.base import Backbone, MethodConfig
from methods.decoder import AdaptedDecoderLayer


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
class FactoredSide:
    """One side (keys or values) of one layer's visual entries, before the projector's second layer.

    Attributes:
        s_BJP: `λ · ind · SiLU(W1 V + b1)`; None where this side takes no visual entries.
        gate_B11: `λ · ind`, the factor of the projector's bias.
    """

    s_BJP: Tensor | None
    gate_B11: Tensor


@dataclass(frozen=True)
class Memory:
    """The memory of one layer (or of all layers, where they share it), in exactly one of two forms.

    Attributes:
        keys, values: factored sides; None in the explicit form.
        rows_RD: with them, `VisualMemory.rows` of either side, where one of them takes visual entries.
        keys_BND, values_BND: the matrices K and M, `B×N×D`; None in the factored form.
    """

    keys: FactoredSide | None = None
    values: FactoredSide | None = None
    rows_RD: tuple[Tensor, Tensor] | None = None
    keys_BND: Tensor | None = None
    values_BND: Tensor | None = None


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
        """`s · dropout(SiLU(x Kᵀ)) M`, `B×T×D`, in whichever form `memory` is given."""
        if memory.keys_BND is not None and memory.values_BND is not None:
            a_BTN = self.dropout(F.silu(x_BTD @ memory.keys_BND.mT))
            return (a_BTN @ memory.values_BND) * self.scale
        assert memory.keys is not None and memory.values is not None, "a memory has one of its two forms"
        key_rows, value_rows = memory.rows_RD or (None, None)
        a_BTN = self.dropout(F.silu(self._scores(x_BTD, memory.keys, key_rows)))
        return self._read(a_BTN, memory.values, value_rows) * self.scale

    def _scores(self, x_BTD: Tensor, side: FactoredSide, rows_RD: Tensor | None) -> Tensor:
        """`x Kᵀ`, `B×T×N`, without building K."""
        if side.s_BJP is None:
            return F.linear(x_BTD, self.prompts.keys)
        assert rows_RD is not None, "visual entries come with their rows"
        patches, rank = side.s_BJP.shape[1:]
        scores_BTR = F.linear(x_BTD, rows_RD)
        prompt_BTN, down_BTP, bias_BT1 = scores_BTR.split([len(rows_RD) - rank - 1, rank, 1], dim=-1)
        visual_BTJ = down_BTP @ side.s_BJP.mT + bias_BT1 * side.gate_B11
        return torch.cat([prompt_BTN[..., :patches] + visual_BTJ, prompt_BTN[..., patches:]], dim=-1)

    def _read(self, a_BTN: Tensor, side: FactoredSide, rows_RD: Tensor | None) -> Tensor:
        """`a M`, `B×T×D`, without building M."""
        if side.s_BJP is None:
            return a_BTN @ self.prompts.values
        assert rows_RD is not None, "visual entries come with their rows"
        a_BTJ = a_BTN[..., : side.s_BJP.shape[1]]
        total_BT1 = a_BTJ.sum(dim=-1, keepdim=True) * side.gate_B11
        return torch.cat([a_BTN, a_BTJ @ side.s_BJP, total_BT1], dim=-1) @ rows_RD

    def rows(self, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """`[P; W2ᵀ; b2]` of keys and of values, in `dtype` once for all layers; None without a projector."""
        if self.projector is None:
            return None
        shared_RD = torch.cat([self.projector.up.weight.T, self.projector.up.bias[None]])
        keys_RD, values_RD = (torch.cat([p, shared_RD]).to(dtype) for p in (self.prompts.keys, self.prompts.values))
        return keys_RD, values_RD

    def explicit(self, keys: FactoredSide, values: FactoredSide) -> Memory:
        """The same memory with K and M built, `B×N×D` each."""
        return Memory(
            keys_BND=self._matrix(self.prompts.keys, keys), values_BND=self._matrix(self.prompts.values, values)
        )

    def _matrix(self, prompts_ND: Tensor, side: FactoredSide) -> Tensor:
        # In the visual entries' dtype once, not in every layer that reads the matrix.
        prompts_ND = prompts_ND.to(side.gate_B11.dtype)
        if side.s_BJP is None or self.projector is None:
            return prompts_ND.expand(side.gate_B11.shape[0], -1, -1)
        up = self.projector.up
        rows_BJD = F.linear(side.s_BJP, up.weight) + side.gate_B11 * up.bias.to(side.gate_B11.dtype)
        return prompts_ND + F.pad(rows_BJD, (0, 0, 0, prompts_ND.shape[0] - rows_BJD.shape[1]))

    def explicit_is_cheaper(self, keys: FactoredSide, values: FactoredSide, num_tokens: int, num_layers: int) -> bool:
        """Whether building the matrices beats going through the projector's rank.

        On each side that takes visual entries, building costs `J·P·D` once for all layers that share it; the factored
        form costs `T·P·(D + J)` more than a read of the built matrix, in every layer. A memory that is not shared is
        never built: its matrices, `B×N×D` a layer and side, would all be kept for the backward pass.
        """
        s_BJP = values.s_BJP if keys.s_BJP is None else keys.s_BJP
        if s_BJP is None or num_layers == 1:
            return False
        patches, hidden_size = s_BJP.shape[1], self.prompts.keys.shape[1]
        return num_layers * num_tokens * (hidden_size + patches) > patches * hidden_size


class MemoryRead(nn.Module):
    """Beside the FFN of one layer: reads this layer's memory.

    Args:
        memory: the module that all layers share.
        layer: index of this layer.
    """

    def __init__(self, memory: VisualMemory, layer: int) -> None:
        super().__init__()
        self.memory = memory
        self.layer = layer

    def forward(self, x_BTD: Tensor, memories: Sequence[Memory]) -> Tensor:
        """`B×T×D` to `B×T×D`; `memories` holds one memory a layer."""
        return self.memory(x_BTD, memories[self.layer])


def attach_memory(backbone: Backbone, memory: VisualMemory) -> None:
    """Put a read of `memory` beside the FFN of every decoder layer; layers then take `memories=[…]`."""
    layers = backbone.llm.model.layers
    for index, layer in enumerate(layers):
        layers[index] = AdaptedDecoderLayer(layer, beside_ffn=MemoryRead(memory, index))


def layer_memories(
    memory: VisualMemory,
    s_BEJP: Tensor | None,
    gate_B11: Tensor,
    slots: Sequence[tuple[int | None, int | None]],
    num_tokens: int,
) -> list[Memory]:
    """One memory a layer, each in the form that costs fewer multiply-adds; layers with equal slots share one.

    Args:
        memory: the module that reads them.
        s_BEJP: `SiLU(W1 V + b1)` of the E distinct fused features; None when there are none.
        gate_B11: `λ · ind`.
        slots: for each layer which of the E features feeds its keys and its values; None where only the prompt does.
        num_tokens: tokens a sample that will be run through the memories.
    """
    if s_BEJP is not None:
        s_BEJP = s_BEJP * gate_B11[..., None]

    def side(slot: int | None) -> FactoredSide:
        return FactoredSide(None if slot is None or s_BEJP is None else s_BEJP[:, slot], gate_B11)

    rows_RD: tuple[Tensor, Tensor] | None = None
    built: dict[tuple[int | None, int | None], Memory] = {}
    for pair, sharing in Counter(slots).items():
        keys, values = side(pair[0]), side(pair[1])
        if memory.explicit_is_cheaper(keys, values, num_tokens, sharing):
            built[pair] = memory.explicit(keys, values)
        else:
            rows_RD = memory.rows(gate_B11.dtype) if rows_RD is None else rows_RD
            built[pair] = Memory(keys=keys, values=values, rows_RD=rows_RD)
    return [built[pair] for pair in slots]


def image_gate(has_image_B: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """`λ · ind` as `B×1×1`."""
    return scale * has_image_B.to(dtype)[:, None, None]
