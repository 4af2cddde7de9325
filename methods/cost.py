"""Matrix products by formula: what a method computes beyond its frozen towers, and where it hooks into them.

A method that wants its FLOPs counted satisfies `Costed`. Elementwise work (norms, activations, softmax, biases) is
left out: it is no matrix product, and small beside them.

Formula: `M×K @ K×N` is 2·M·K·N FLOPs (multiply-add = 2), and in training as many again for each of its two operands
whose gradient is computed. So a frozen linear layer costs twice its forward, a trained one behind a trained module
three times, and a frozen one in front of every trained module no more than its forward.

Sizes in the signatures: samples B, tokens T of one forward, images (one for each sample).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from methods.adapters import Projector, RoutedAdapter
from methods.fuser import FuserBlock, HierarchicalVisualFuser
from methods.memory import Memory, VisualMemory, layer_memories


@dataclass(frozen=True)
class Product:
    """One matrix product, or several of one kind.

    Attributes:
        module: what it belongs to, as breakdowns name it.
        flops: of the forward.
        gradients: how many of its two operands need a gradient in training.
    """

    module: str
    flops: int
    gradients: int


@dataclass(frozen=True)
class Entry:
    """The first place of a frozen tower that a trained value reaches: what lies before it has no backward.

    Attributes:
        layer: 0-based block.
        place: before the attention ("input"), at its output ("attention") or at the FFN's output ("ffn").
    """

    layer: int
    place: Literal["input", "attention", "ffn"]


@dataclass(frozen=True)
class ImageCost:
    """What `encode_images` runs.

    Attributes:
        blocks: blocks of the vision tower that run; 0: it is not looked at.
        entry: where the vision tower gets trained values; None: nowhere.
        products: the method's own.
    """

    blocks: int
    entry: Entry | None
    products: Sequence[Product]


@dataclass(frozen=True)
class TokenCost:
    """What one forward of the language model runs besides the frozen layers.

    Attributes:
        entry: where the language model gets trained values.
        prepared: products of `layer_inputs`, made once for all decoded tokens.
        products: the method's own inside the layers.
    """

    entry: Entry
    prepared: Sequence[Product]
    products: Sequence[Product]


@runtime_checkable
class Costed(Protocol):
    """A method whose FLOPs can be counted. It is asked on the meta device: shapes alone."""

    def image_cost(self, images: int) -> ImageCost:
        """Products of encoding `images` images."""
        ...

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """Columns of the sequence that `build_sequence` makes of a sample with an image and `text_tokens` tokens."""
        ...

    def token_cost(self, samples: int, tokens: int, *, decoding: bool) -> TokenCost:
        """Products of one forward of `tokens` columns a sample; `decoding`: one behind a cached prompt."""
        ...


def matmul(module: str, rows: int, inner: int, columns: int, *, gradients: int) -> Product:
    """`rows×inner @ inner×columns`."""
    return Product(module, 2 * rows * inner * columns, gradients)


def linear(module: str, layer: nn.Linear, rows: int, *, input_grad: bool, trained: bool = True) -> Product:
    """A linear layer on `rows` rows."""
    return matmul(module, rows, layer.in_features, layer.out_features, gradients=int(input_grad) + int(trained))


def projector_products(module: str, projector: Projector, rows: int, *, input_grad: bool) -> list[Product]:
    """The projector's two layers on `rows` rows."""
    return [
        linear(module, projector.down, rows, input_grad=input_grad),
        linear(module, projector.up, rows, input_grad=True),
    ]


def parallel_adapter_products(module: str, adapters: Iterable[Any], rows: int) -> list[Product]:
    """`ParallelAdapter`s of consecutive CLIP blocks from the first on, whose input alone needs no gradient."""
    return [
        product
        for index, adapter in enumerate(adapters)
        for product in (
            linear(module, adapter.down, rows, input_grad=index > 0),
            linear(module, adapter.up, rows, input_grad=True),
        )
    ]


def routed_adapter_products(
    module: str, adapter: nn.Module, rows: int, weight_rows: int, *, input_grad: bool, routed: bool = True
) -> list[Product]:
    """RepAdapter with router on `rows` rows, mixed by `weight_rows` rows of routing weights.

    Each group of the output reads its own part of every expert's bottleneck. `routed`: the weights are computed here.
    """
    assert isinstance(adapter, RoutedAdapter)
    experts, groups, columns, inner = adapter.up_EGOA.shape
    products = [
        linear(module, adapter.down, rows, input_grad=input_grad),
        matmul(module, groups * rows, experts * inner, columns, gradients=2),
        matmul(module, weight_rows, experts, groups * columns, gradients=2),
    ]
    if routed:
        products.append(linear(module, adapter.router, weight_rows, input_grad=input_grad))
    return products


def fuser_products(
    module: str, fuser: HierarchicalVisualFuser, images: int, queries: int, features: int
) -> list[Product]:
    """The fuser on `images` images: `queries` of each group over its `features` features."""
    groups = images * fuser.num_groups
    context = linear(module, fuser.projection, groups * features, input_grad=True)
    dim = fuser.projection.out_features
    weights = matmul(module, groups * queries, dim, features, gradients=2)
    blocks = [p for block in fuser.blocks for p in _fuser_block(module, block, groups, queries, features, dim)]
    return [context, *blocks, weights]


def _fuser_block(module: str, block: nn.Module, groups: int, queries: int, features: int, dim: int) -> list[Product]:
    assert isinstance(block, FuserBlock)
    rows = groups * queries
    ffn = [linear(module, layer, rows, input_grad=True) for layer in block.ffn if isinstance(layer, nn.Linear)]
    return [
        matmul(module, 2 * rows, dim, dim, gradients=2),  # queries and output
        matmul(module, 2 * groups * features, dim, dim, gradients=2),  # keys and values
        matmul(module, 2 * rows, dim, features, gradients=2),  # scores, and their sum of the values
        *ffn,
    ]


def memory_cost(
    memory: VisualMemory, slots: Sequence[tuple[int | None, int | None]], samples: int, tokens: int, patches: int
) -> TokenCost:
    """Building and reading every layer's memory, in the form that `layer_memories` chooses.

    Args:
        memory: the module that all layers share.
        slots: as given to `layer_memories`.
        samples: batch size.
        tokens: columns of this forward.
        patches: visual rows.
    """
    features = 1 + max((feature for slot in slots for feature in slot if feature is not None), default=-1)
    s_BEJP, rank = None, 0
    if memory.projector is not None:
        rank = memory.projector.down.out_features
        s_BEJP = torch.empty(samples, features, patches, rank, device="meta")
    gate_B11 = torch.empty(samples, 1, 1, device="meta")
    memories = layer_memories(memory, s_BEJP, gate_B11, slots, tokens)
    built = {slot for slot, given in zip(slots, memories, strict=True) if given.keys_BND is not None}
    sides = sum(feature is not None for slot in built for feature in slot)
    width = memory.prompts.keys.shape[1]
    return TokenCost(
        # The FFN is the first that sees anything trained, and it gives it to the next layer.
        entry=Entry(0, "ffn"),
        prepared=[matmul("memory.build", sides * samples * patches, rank, width, gradients=2)],
        products=[p for layer, given in enumerate(memories) for p in _read(memory, given, samples * tokens, layer > 0)],
    )


def _read(memory: VisualMemory, given: Memory, rows: int, input_grad: bool) -> list[Product]:
    """Reading one layer's memory in the form it is given; the first layer's input needs no gradient."""
    length, width = memory.prompts.keys.shape
    with_input = 1 + int(input_grad)
    products = [
        matmul("memory.read", rows, width, length, gradients=with_input),
        matmul("memory.read", rows, length, width, gradients=2),
    ]
    for side, gradients in ((given.keys, with_input), (given.values, 2)):
        if side is not None and side.s_BJP is not None:
            _, patches, rank = side.s_BJP.shape
            products += [
                matmul("memory.read", rows, width, rank, gradients=gradients),
                matmul("memory.read", rows, rank, patches, gradients=2),
            ]
    return products
