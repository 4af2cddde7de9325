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
from methods.memory import VisualMemory, layer_memories
from methods.memory_forms import BuiltSide, FactoredSide, MemorySide, RebuiltSide


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
    """Building and reading every layer's memory, in the form that `layer_memories` chooses where there is no GPU.

    Args:
        memory: the module that all layers share.
        slots: as given to `layer_memories`.
        samples: batch size.
        tokens: columns of this forward.
        patches: visual rows.
    """
    used = {slot for pair in slots for slot in pair if slot is not None}
    rank = memory.projector.down.out_features if memory.projector is not None else 0
    visual = {
        "s_BEJP": torch.empty(samples, 1 + max(used, default=-1), patches, rank, device="meta"),
        "has_image_B": torch.empty(samples, device="meta"),
    }
    # λ is no matter: shapes alone.
    memories = layer_memories(memory, visual, 1.0, slots, tokens)
    width = memory.prompts.keys.shape[1]
    shared = {id(side) for given in memories for side in (given.keys, given.values) if isinstance(side, BuiltSide)}
    return TokenCost(
        # The FFN is the first that sees anything trained, and it gives it to the next layer.
        entry=Entry(0, "ffn"),
        prepared=[matmul("memory.build", len(shared) * samples * patches, rank, width, gradients=2)],
        products=[
            product
            for layer, given in enumerate(memories)
            # The first layer's input needs no gradient; the activations always do.
            for side, left_grad in ((given.keys, layer > 0), (given.values, True))
            for product in _side_products(memory, side, samples * tokens, left_grad)
        ],
    )


def _side_products(memory: VisualMemory, side: MemorySide, rows: int, left_grad: bool) -> list[Product]:
    """Products with one side of one layer's memory; `left_grad`: what is multiplied with it needs a gradient."""
    length, width = memory.prompts.keys.shape
    with_left = 1 + int(left_grad)
    products = [matmul("memory.read", rows, length, width, gradients=with_left)]
    match side:
        case FactoredSide(s_BJP):
            _, patches, rank = s_BJP.shape
            products += [
                matmul("memory.read", rows, width, rank, gradients=with_left),
                matmul("memory.read", rows, rank, patches, gradients=2),
            ]
        case RebuiltSide(s_BJP):
            samples, patches, rank = s_BJP.shape
            # Where the left side needs a gradient, the backward builds the matrix once more.
            products.append(matmul("memory.build", samples * patches, rank, width, gradients=2 + int(left_grad)))
    return products
