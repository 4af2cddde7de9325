"""One side of a layer's memory (its keys or its values), in several forms with equal output.

A side is a matrix `K = λ · ind · [f(V); 0] + P`, whose visual rows are `λ · ind · (S W2ᵀ + b2)` with
`S = SiLU(W1 V + b1)`. The bias is one more rank: with `S⁺ = λ · ind · [S, 1]` and `W⁺ = [W2ᵀ; b2]`,

    K = [S⁺; 0] W⁺ + P

Without the prompts, the rank of K is no more than the projector's width plus one. A side with visual entries has one of
these forms:

- built: K is built once and shared by all layers that read it;
- kept: K is built inside the one layer that reads it, and kept for the backward pass;
- rebuilt: the same, but K is not kept and is built again in the backward pass;
- factored: K is never built, and the products with it go through the rank of S⁺, with S⁺ filled up with rows of zeros:

      x Kᵀ = x Pᵀ + (x W⁺ᵀ) S⁺ᵀ        a K = [a, a S⁺] [P; W⁺]

  where the products of x with P and with W⁺ are one product, too.

`cheapest_form` chooses between them.

Shape suffixes as in `methods.memory`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from methods.cost import Product, matmul

Form = Literal["built", "kept", "rebuilt", "factored"]

GPU_ROWS = 8
"""On a GPU the number of rows `[P; W⁺]` is a multiple of this. The tensor cores load 16 bytes at a time, which is 8
elements of 2 bytes; a product whose size is not a multiple of that uses a slower kernel."""
GPU_BUILD = 8
"""The time of building K on a GPU, in units of the time that its multiply-adds take at peak throughput. Building is
limited by memory bandwidth: it makes about five passes over K. By their data sheets, an H100 or H200 does 200 to 300
multiply-adds in bfloat16 in the time of one pass over an element. At the usual projector width of 128, five passes thus
take 8 to 12 times as long as the multiply-adds; this is the low end."""
KEPT_BYTES = 256 * 2**20
"""The matrices of all layers are kept for the backward pass only if they take no more memory than this together. It is
little beside the weights and activations of the language models whose memories come near it."""


class MemorySide(Protocol):
    """The keys or the values of one layer: a matrix K of size `N×D` per sample, used only through its products."""

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Return `x Kᵀ`, `B×T×N`."""
        ...

    def read(self, a_BTN: Tensor) -> Tensor:
        """Return `a K`, `B×T×D`."""
        ...

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """Return the matrix products of `scores`; those of `read` have the same FLOPs.

        Args:
            rows: tokens of all samples together (B·T).
            left_grad: whether the left operand (x or a) needs a gradient in training.
        """
        ...


@dataclass(frozen=True)
class PromptSide:
    """A side without visual entries: K is the position prompts.

    Attributes:
        prompts_ND: P.
    """

    prompts_ND: Tensor

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Return `x Pᵀ`, `B×T×N`."""
        return F.linear(x_BTD, self.prompts_ND)

    def read(self, a_BTN: Tensor) -> Tensor:
        """Return `a P`, `B×T×D`."""
        return a_BTN @ self.prompts_ND

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """Return the product with P."""
        return [_read_product(rows, self.prompts_ND, left_grad)]


@dataclass(frozen=True)
class BuiltSide:
    """The built form: K itself. All layers with equal entries share it, and it is kept for the backward pass.

    Attributes:
        matrix_BND: K.
    """

    matrix_BND: Tensor

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Return `x Kᵀ`, `B×T×N`."""
        return x_BTD @ self.matrix_BND.mT

    def read(self, a_BTN: Tensor) -> Tensor:
        """Return `a K`, `B×T×D`."""
        return a_BTN @ self.matrix_BND

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """Return the product with K. Building K is counted once for all layers, in `methods.memory.memory_cost`."""
        return [_read_product(rows, self.matrix_BND, left_grad)]


@dataclass(frozen=True)
class SideWeights:
    """The weights that one side (keys or values) of all layers shares, converted once to the dtype of the features.

    Attributes:
        prompts_ND: P, the position prompts of this side.
        up_RD: W⁺, the projector's second layer with its bias as the last row; rows of zeros may follow.
    """

    prompts_ND: Tensor
    up_RD: Tensor

    def rows_MD(self) -> Tensor:
        """Return the rows `[P; W⁺]`."""
        return torch.cat([self.prompts_ND, self.up_RD])

    def matrix(self, s_BJR: Tensor) -> Tensor:
        """Build K, `B×N×D`, from S⁺."""
        patches = s_BJR.shape[1]
        visual_BJD = s_BJR @ self.up_RD + self.prompts_ND[:patches]
        if patches == len(self.prompts_ND):
            return visual_BJD
        rest_BND = self.prompts_ND[patches:].expand(len(s_BJR), -1, -1)
        return torch.cat([visual_BJD, rest_BND], dim=1)


@dataclass(frozen=True)
class LayerSide:
    """The kept and the rebuilt form: K is built inside the one layer that reads it.

    Attributes:
        s_BJR: S⁺.
        weights: the weights that all layers share.
        kept: whether K is kept for the backward pass. If not, the backward pass builds it again.
    """

    s_BJR: Tensor
    weights: SideWeights
    kept: bool

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Return `x Kᵀ`, `B×T×N`."""
        return self._run(lambda x: x @ self.weights.matrix(self.s_BJR).mT, x_BTD)

    def read(self, a_BTN: Tensor) -> Tensor:
        """Return `a K`, `B×T×D`."""
        return self._run(lambda a: a @ self.weights.matrix(self.s_BJR), a_BTN)

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """Return the product with K, and that of building K."""
        samples, patches, rank = self.s_BJR.shape
        prompts_ND = self.weights.prompts_ND
        # The backward pass needs K only for the gradient of the left operand.
        gradients = 2 + int(left_grad and not self.kept)
        return [
            _read_product(rows, prompts_ND, left_grad),
            matmul("memory.build", samples * patches, rank, prompts_ND.shape[1], gradients=gradients),
        ]

    def _run(self, product: Callable[[Tensor], Tensor], left: Tensor) -> Tensor:
        """Return `product(left)`; without keeping K, run it again in the backward pass, up to the last product."""
        if self.kept:
            return product(left)
        result: Tensor = checkpoint(product, left, use_reentrant=False, preserve_rng_state=False)
        return result


@dataclass(frozen=True)
class FactoredSide:
    """The factored form: products go through the rank of S⁺, and K is never built.

    Attributes:
        s_BNR: S⁺, filled up with rows of zeros to the rows of the memory.
        rows_MD: `SideWeights.rows_MD`.
    """

    s_BNR: Tensor
    rows_MD: Tensor

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Return `x Kᵀ`, `B×T×N`."""
        prompt_BTN, up_BTR = F.linear(x_BTD, self.rows_MD).split(self.s_BNR.shape[1:], dim=-1)
        return torch.baddbmm(prompt_BTN, up_BTR, self.s_BNR.mT)

    def read(self, a_BTN: Tensor) -> Tensor:
        """Return `a K`, `B×T×D`."""
        return torch.cat([a_BTN, a_BTN @ self.s_BNR], dim=-1) @ self.rows_MD

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """Return the product with the rows `[P; W⁺]` and that with S⁺."""
        length, rank = self.s_BNR.shape[1:]
        return [
            _read_product(rows, self.rows_MD, left_grad),
            matmul("memory.read", rows, rank, length, gradients=2),
        ]


def _read_product(rows: int, matrix: Tensor, left_grad: bool) -> Product:
    """Return the product of `rows` rows with a matrix `…×N×D` or with its transpose."""
    length, width = matrix.shape[-2:]
    return matmul("memory.read", rows, length, width, gradients=1 + int(left_grad))


def cheapest_form(
    tokens: int,
    layers: int,
    patches: int,
    length: int,
    hidden_size: int,
    *,
    with_backward: bool,
    may_keep: bool,
    on_gpu: bool = False,
) -> Form:
    """Return the form of a side that needs the fewest multiply-adds.

    The product with a matrix of `N` rows is part of every form and is left out.

    Divided by the rank of S⁺, which all terms share, the numbers per sample are:

    - The factored form needs `T·(D + N)` in every layer.
    - Building K needs `J·D`, once for all layers that share it.
    - Training needs three times as much of either, for the two gradients. K of a single layer is built once more in the
      backward pass if it may not be kept.
    - On a GPU, the multiply-adds of building K are weighted by `GPU_BUILD`.

    Args:
        tokens: T, the tokens per sample of the forward pass.
        layers: how many layers read the same entries.
        patches: J.
        length: N.
        hidden_size: D.
        with_backward: whether a backward pass will follow.
        may_keep: whether there is memory to keep the matrix of every layer for the backward pass.
        on_gpu: whether a GPU computes the products.
    """
    passes = 3 if with_backward else 1
    own: Form = "kept" if may_keep else "rebuilt"
    form: Form = own if layers == 1 else "built"
    builds = passes + int(with_backward and form == "rebuilt")
    build = builds * patches * hidden_size * (GPU_BUILD if on_gpu else 1)
    return "factored" if passes * layers * tokens * (hidden_size + length) <= build else form
