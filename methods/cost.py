"""Matrix products by formula: what a method computes beyond its frozen towers, and where it hooks into them.

A method that wants its FLOPs counted satisfies `Costed`. Elementwise work (norms, activations, softmax, biases) is
left out: it is no matrix product, and small beside them.

Formula: `M×K @ K×N` is 2·M·K·N FLOPs (multiply-add = 2), and in training as many again for each of its two operands
whose gradient is computed. So a frozen linear layer costs twice its forward, a trained one behind a trained module
three times, and a frozen one in front of every trained module no more than its forward.

Sizes in the signatures: samples B, tokens T of one forward, images (one for each sample).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import nn


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
