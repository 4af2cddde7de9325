"""An FFN whose key-value memory takes visual entries, as in MemVP and DEHVF.

The visual features V go through the projector: `f(V) = S W2ᵀ + b2` with `S = SiLU(W1 V + b1)`. With the position
prompts `P_k` and `P_v` and the has-image flag `ind`, one layer has the memory `K`, `M` and adds `out(x)` to its FFN:

    K = λ · ind · [f(V_k); 0] + P_k        M = λ · ind · [f(V_v); 0] + P_v        both N × D
    out(x) = s · dropout(SiLU(x Kᵀ)) M

LLaMA's FFN is gated (SwiGLU), and its gate does not multiply these rows. The factors λ and s are set in the config.
Sources: MemVP (Jie et al. 2024, arXiv:2405.05615); DEHVF, Eq. (10)-(13).

`K` and `M` need not be built: `methods.memory_forms` has several forms with equal output. `layer_memories` chooses the
cheapest for each side (a side is the keys or the values).

Shape suffixes: B batch, T tokens, D hidden_size, N memory rows, J patches (J <= N), P projector width,
R = P + 1 the rank of the visual rows (on a GPU a little more, see `GPU_ROWS`), M = N + R (in formulas, M is the matrix
of the values), E fused features; 1 stands for a broadcast dimension.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from methods.adapters import Projector
from methods.base import Backbone, MethodConfig, VisualFeatures
from methods.cost import Entry, TokenCost, matmul
from methods.decoder import AdaptedDecoderLayer
from methods.memory_forms import (
    GPU_ROWS,
    KEPT_BYTES,
    BuiltSide,
    FactoredSide,
    LayerSide,
    MemorySide,
    PromptSide,
    SideWeights,
    cheapest_form,
)


class MemoryConfig(MethodConfig):
    """The config fields of every method with such a memory. The defaults are those of MemVP's published 7B run."""

    memory_length: int = Field(320, ge=1, description="memory rows N: 320 at 7B, 400 at 13B")
    projector_dim: int = Field(128, ge=1, description="width between the projector's two layers")
    visual_scale: float = Field(0.01, description="λ, the factor on projected visual features")
    memory_scale: float = Field(0.1, description="s, the factor on the memory's output")
    memory_dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the memory's activations")
    prompt_std: float = Field(0.02, ge=0, description="standard deviation of P_k at initialisation")
    adapter_dim: int = Field(12, ge=1, description="bottleneck of the parallel CLIP adapters")
    adapter_scale: float = Field(0.1, description="factor on the CLIP adapters' output")
    adapter_dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside the CLIP adapters")


@dataclass(frozen=True)
class Memory:
    """The memory of one layer, or of several layers that share it: `K` and `M`, each in one of the forms.

    Attributes:
        keys: K.
        values: M.
    """

    keys: MemorySide
    values: MemorySide


class PositionPrompts(nn.Module):
    """The position prompts `P_k` and `P_v`, both `N×D`, which all layers share.

    At initialisation, `P_k ~ std · N(0, 1)` and `P_v = 0`.

    Args:
        length: memory rows (N); DEHVF's Table 5 calls this the "length of position embedding".
        hidden_size: D.
        std: standard deviation of `P_k` at initialisation (0.02 in the published runs).
    """

    def __init__(self, length: int, hidden_size: int, std: float) -> None:
        super().__init__()
        self.keys = nn.Parameter(std * torch.randn(length, hidden_size))
        self.values = nn.Parameter(torch.zeros(length, hidden_size))


def check_memory_length(length: int, num_patches: int) -> None:
    """Check that the visual rows fit into the memory.

    Args:
        length: memory rows (N).
        num_patches: patches of the vision tower (J).

    Raises:
        ValueError: the memory has fewer rows than there are patches.
    """
    if length < num_patches:
        raise ValueError(
            f"memory_length {length} is shorter than the {num_patches} patches of the vision tower; "
            f"set memory_length to at least {num_patches}"
        )


class VisualMemory(nn.Module):
    """The parameters of the memory, and reading it. One module serves all layers.

    Args:
        prompts: position prompts, shared by all layers.
        projector: the projector, shared by all layers; None if no layer takes visual entries.
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
        """Read a layer's memory: `s · dropout(SiLU(x Kᵀ)) M`.

        Args:
            x_BTD: the input of the layer's FFN.
            memory: the layer's memory.

        Returns:
            What is added to the output of the FFN, `B×T×D`.
        """
        a_BTN = self.dropout(F.silu(memory.keys.scores(x_BTD)))
        # The activations are narrower than the output, so the factor costs less here.
        return memory.values.read(a_BTN * self.scale)

    def side_weights(self, dtype: torch.dtype) -> tuple[SideWeights, SideWeights]:
        """Return the shared weights of the keys and those of the values, converted to `dtype`.

        The memory must have a projector.
        """
        assert self.projector is not None, "visual entries need a projector"
        keys_ND, values_ND = (p.to(dtype) for p in (self.prompts.keys, self.prompts.values))
        up = self.projector.up
        up_RD = torch.cat([up.weight.T, up.bias[None]]).to(dtype)
        filling = -(len(keys_ND) + len(up_RD)) % GPU_ROWS
        if filling and up_RD.is_cuda:
            up_RD = F.pad(up_RD, (0, 0, 0, filling))
        return SideWeights(keys_ND, up_RD), SideWeights(values_ND, up_RD)


class MemoryRead(nn.Module):
    """Runs in parallel with the FFN of one layer and reads this layer's memory.

    Args:
        memory: the module that all layers share.
        layer_idx: index of this layer.
    """

    token_wise: ClassVar[bool] = True

    def __init__(self, memory: VisualMemory, layer_idx: int) -> None:
        super().__init__()
        self.memory = memory
        self.layer_idx = layer_idx

    def forward(self, x_BTD: Tensor, memories: Sequence[Memory]) -> Tensor:
        """Return what is added to the FFN's output, `B×T×D`; `memories` holds one memory per layer."""
        return self.memory(x_BTD, memories[self.layer_idx])


def attach_memory(backbone: Backbone, memory: VisualMemory) -> None:
    """Add a `MemoryRead` in parallel with the FFN of every decoder layer. The layers then take the keyword `memories`.

    Args:
        backbone: the backbone; its decoder layers are wrapped in place.
        memory: the module that all layers share.
    """
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
    """Return one memory per layer, each side in the form that needs the fewest multiply-adds.

    Layers whose keys (or values) come from the same feature share that side.

    Args:
        memory: the module that will read the memories.
        visual: `has_image_B`, and `s_BEJP`, which is `SiLU(W1 V + b1)` of each of the E fused features V.
        visual_scale: λ.
        slots: for each layer, the index of the feature of its keys and that of its values; None for a side that is the
            position prompts alone.
        num_tokens: tokens per sample of the forward pass that will read the memories.
    """
    used = {slot for pair in slots for slot in pair if slot is not None}
    if not used:
        prompts_only = Memory(PromptSide(memory.prompts.keys), PromptSide(memory.prompts.values))
        return [prompts_only] * len(slots)
    s_BEJP = visual["s_BEJP"]
    dtype = s_BEJP.dtype
    gate_B11 = image_gate(visual["has_image_B"], visual_scale, dtype)
    weights = memory.side_weights(dtype)
    # Further columns of S⁺ would meet rows of zeros in W⁺. Make each feature contiguous and unbind once: slicing per
    # feature would allocate a full-size gradient each time.
    columns = len(weights[0].up_RD) - s_BEJP.shape[-1]
    features = (F.pad(s_BEJP.transpose(0, 1), (0, columns), value=1.0) * gate_B11).unbind()
    keys, values = (
        _sides(features, [pair[index] for pair in slots], num_tokens, side) for index, side in enumerate(weights)
    )
    return [Memory(keys[key], values[value]) for key, value in slots]


def _sides(
    features: Sequence[Tensor], slots: Sequence[int | None], num_tokens: int, weights: SideWeights
) -> dict[int | None, MemorySide]:
    """Return the side for each distinct index in `slots`. The arguments are those of `layer_memories`, for one side.

    Args:
        features: `S⁺` of each fused feature, `B×J×R` each.
        slots: for each layer, the index of its feature; None for the position prompts alone.
        num_tokens: tokens per sample.
        weights: the weights that all layers share.
    """
    sides: dict[int | None, MemorySide] = {}
    rows_MD: Tensor | None = None  # made once for all slots, and only if one is factored
    length, hidden_size = weights.prompts_ND.shape
    samples, patches, _ = features[0].shape
    matrix_bytes = samples * weights.prompts_ND.nbytes
    for slot, sharing in Counter(slots).items():
        if slot is None:
            sides[slot] = PromptSide(weights.prompts_ND)
            continue
        s_BJR = features[slot]
        form = cheapest_form(
            num_tokens,
            sharing,
            patches,
            length,
            hidden_size,
            with_backward=torch.is_grad_enabled(),
            # Keys and values of every layer.
            may_keep=2 * len(slots) * matrix_bytes <= KEPT_BYTES,
            on_gpu=s_BJR.is_cuda,
        )
        match form:
            case "built":
                sides[slot] = BuiltSide(weights.matrix(s_BJR))
            case "kept" | "rebuilt":
                sides[slot] = LayerSide(s_BJR, weights, kept=form == "kept")
            case "factored":
                rows_MD = weights.rows_MD() if rows_MD is None else rows_MD
                sides[slot] = FactoredSide(F.pad(s_BJR, (0, 0, 0, length - patches)), rows_MD)
    return sides


def memory_cost(
    memory: VisualMemory,
    slots: Sequence[tuple[int | None, int | None]],
    samples: int,
    tokens: int,
    read: int,
    patches: int,
) -> TokenCost:
    """Return the products of building and reading every layer's memory.

    They are counted in the form that `layer_memories` chooses where there is no GPU.

    Args:
        memory: the module that all layers share, on the meta device.
        slots: as given to `layer_memories`.
        samples: batch size.
        tokens: columns of this forward pass.
        read: columns of each sample that the last layer computes.
        patches: visual rows of each sample.
    """
    used = {slot for pair in slots for slot in pair if slot is not None}
    rank = memory.projector.down.out_features if memory.projector is not None else 0
    visual = {
        "s_BEJP": torch.empty(samples, 1 + max(used, default=-1), patches, rank, device="meta"),
        "has_image_B": torch.empty(samples, device="meta"),
    }
    # Only shapes matter here, so λ can have any value.
    memories = layer_memories(memory, visual, 1.0, slots, tokens)
    width = memory.prompts.keys.shape[1]
    rows = [samples * tokens] * (len(memories) - 1) + [samples * read]
    # A matrix that layers share is built before all of them; its bias is one more rank.
    shared = {id(side) for given in memories for side in (given.keys, given.values) if isinstance(side, BuiltSide)}
    return TokenCost(
        # The output of the first layer's FFN is the first trained value in the language model.
        entry=Entry(0, "ffn"),
        prepared=[matmul("memory.build", len(shared) * samples * patches, rank + 1, width, gradients=2)],
        products=[
            product
            for layer, given in enumerate(memories)
            # The keys are multiplied by the FFN's input, which needs no gradient in the first layer. The values are
            # multiplied by the activations, which always need one.
            for side, left_grad in ((given.keys, layer > 0), (given.values, True))
            for product in side.products(rows[layer], left_grad=left_grad)
        ],
    )


def image_gate(has_image_B: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Return `λ · ind`, the factor on the visual entries of each sample, as `B×1×1`.

    Args:
        has_image_B: ind, 1 or true where a sample has an image.
        scale: λ.
        dtype: of the result.
    """
    return scale * has_image_B.to(dtype)[:, None, None]
