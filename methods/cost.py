"""The types for counting FLOPs: matrix products, and what a method reports about its own.

A method that wants its FLOPs counted satisfies `Costed`. It lists the matrix products that it adds to the frozen
towers, and names the place in each tower where it adds trained values. Each shared block lists its own products, in a
method called `products`. Elementwise operations (norms, activations, softmax, biases) are not counted, because they
are small compared with the matrix products.

A product `M×K @ K×N` is 2·M·K·N FLOPs in the forward pass (multiply-add = 2). Training adds the same number for each of
its two operands that needs a gradient. A frozen linear layer whose input needs a gradient therefore costs twice its
forward pass in training. A trained one after a trained module costs three times its forward pass. A frozen one
before every trained module costs its forward pass alone.

Sizes in the signatures: samples B; tokens T of one forward pass; read, the columns of a sample that are read after the
last decoder layer, which computes its queries, output and FFN for these alone; images, one for each sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import nn


@dataclass(frozen=True)
class Product:
    """One matrix product, or several of the same kind together.

    Attributes:
        module: the name under which breakdowns list it.
        flops: FLOPs of the forward pass.
        gradients: how many of its two operands need a gradient in training (0, 1 or 2).
    """

    module: str
    flops: int
    gradients: int


@dataclass(frozen=True)
class Entry:
    """The first place in a frozen tower that a trained value reaches. Nothing before it has a backward pass.

    Attributes:
        layer: index of the layer or block, from 0.
        place: before the attention ("input"), at the attention's output ("attention") or at the FFN's output ("ffn").
    """

    layer: int
    place: Literal["input", "attention", "ffn"]


@dataclass(frozen=True)
class ImageCost:
    """What `encode_images` runs.

    Attributes:
        blocks: blocks of the vision tower that run; 0 if the images are not used.
        entry: where trained values enter the vision tower; None if they do not.
        products: the method's own products.
    """

    blocks: int
    entry: Entry | None
    products: Sequence[Product]


@dataclass(frozen=True)
class TokenCost:
    """What one forward pass of the language model runs besides the frozen layers.

    Attributes:
        entry: where trained values enter the language model.
        prepared: products that are computed once for a forward pass, and once for all decoded tokens together.
        products: the method's own products inside the layers.
    """

    entry: Entry
    prepared: Sequence[Product]
    products: Sequence[Product]


@runtime_checkable
class Costed(Protocol):
    """A method whose FLOPs can be counted. The functions are called on the meta device, where only shapes exist."""

    def image_cost(self, images: int) -> ImageCost:
        """Return the products of encoding `images` images."""
        ...

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """Return the number of columns that `build_sequence` makes of an image and a text.

        Args:
            text_tokens: tokens of the text.
            training: whether the sequence carries labels, because some methods cut only such sequences.
        """
        ...

    def token_cost(self, samples: int, tokens: int, read: int, *, decoding: bool) -> TokenCost:
        """Return the products of one forward pass.

        Args:
            samples: B.
            tokens: columns of each sample (T).
            read: how many of these columns the last decoder layer computes; T if it computes all.
            decoding: whether the columns follow a cached prompt.
        """
        ...


def matmul(module: str, rows: int, inner: int, columns: int, *, gradients: int) -> Product:
    """Return the product `rows×inner @ inner×columns`. `module` and `gradients` are the attributes of `Product`."""
    return Product(module, 2 * rows * inner * columns, gradients)


def linear(module: str, layer: nn.Linear, rows: int, *, input_grad: bool, trained: bool = True) -> Product:
    """Return the product of a linear layer.

    Args:
        module: the name under which it is counted.
        layer: the layer, for its sizes.
        rows: vectors that the layer is applied to.
        input_grad: whether the input needs a gradient in training.
        trained: whether the weight needs one.
    """
    return matmul(module, rows, layer.in_features, layer.out_features, gradients=int(input_grad) + int(trained))
