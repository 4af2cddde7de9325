"""One side of a layer's memory (its keys or its values), in several forms with equal output.

A side is a matrix `K = λ · ind · [f(V); 0] + P`. With `gate = λ · ind` and `S = gate · SiLU(W1 V + b1)`, its visual
rows are `S W2ᵀ + gate · b2`, to which the position prompts P are added. Without the prompts, the rank of K is no more
than the projector's width. A side with visual entries has one of three forms:

- built: K is built once and shared by all layers that read it;
- rebuilt: K is built inside the one layer that reads it, and again in its backward pass, so that it is never kept;
- factored: K is never built, and the products with it go through the projector's width:

      x Kᵀ = x·Pᵀ + (x W2) Sᵀ + gate · x·b2        a K = a P + (a S) W2ᵀ + gate · (Σ a) b2

  where the products with P, W2 and b2 are one product with the concatenated rows `[P; W2ᵀ; b2]`.

`cheapest_form` chooses between them.

Shape suffixes as in `methods.memory`; Q = B·J, the visual rows of a batch.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.cost import Product, matmul

Form = Literal["built", "rebuilt", "factored"]

GPU_ROWS = 8
"""On a GPU the number of concatenated rows is a multiple of this. The tensor cores load 16 bytes at a time, which is 8
elements of 2 bytes; a product whose size is not a multiple of that uses a slower kernel."""
GPU_BUILD = 8
"""The time of building K on a GPU, in units of the time that its multiply-adds take at peak throughput. Building is
limited by memory bandwidth: it makes about five passes over K. By their data sheets, an H100 or H200 does 200 to 300
multiply-adds in bfloat16 in the time of one pass over an element. At the usual projector width of 128, five passes thus
take 8 to 12 times as long as the multiply-adds; this is the low end."""


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
        weight_DP, bias_D: W2 and b2, the projector's second layer.
    """

    prompts_ND: Tensor
    weight_DP: Tensor
    bias_D: Tensor

    @cached_property
    def rows_RD(self) -> Tensor:
        """The rows `[P; W2ᵀ; b2]`; on a GPU, rows of zeros are appended up to a multiple of `GPU_ROWS`."""
        rows = [self.prompts_ND, self.weight_DP.T, self.bias_D[None]]
        filling = -sum(map(len, rows)) % GPU_ROWS
        if filling and self.bias_D.is_cuda:
            rows.append(self.bias_D.new_zeros(filling, len(self.bias_D)))
        return torch.cat(rows)

    def matrix(self, s_BJP: Tensor, gate_B11: Tensor) -> Tensor:
        """Build K, `B×N×D`.

        Args:
            s_BJP: S, the gate included.
            gate_B11: λ · ind.
        """
        patches = s_BJP.shape[1]
        visual_BJD = F.linear(s_BJP, self.weight_DP) + gate_B11 * self.bias_D + self.prompts_ND[:patches]
        if patches == len(self.prompts_ND):
            return visual_BJD
        rest_BND = self.prompts_ND[patches:].expand(len(s_BJP), -1, -1)
        return torch.cat([visual_BJD, rest_BND], dim=1)


@dataclass(frozen=True)
class FactoredSide:
    """The factored form: products go through the projector's width, and K is never built.

    Attributes:
        s_BJP: S, the gate included.
        gate_B11: λ · ind, the factor on the projector's bias.
        rows_RD: `SideWeights.rows_RD`.
        num_prompts: N, the number of its rows that are prompts.
    """

    s_BJP: Tensor
    gate_B11: Tensor
    rows_RD: Tensor
    num_prompts: int

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Return `x Kᵀ`, `B×T×N`."""
        patches, rank = self.s_BJP.shape[1:]
        rest = self.num_prompts - patches
        sizes = [patches, rest, rank, 1, len(self.rows_RD) - self.num_prompts - rank - 1]
        prompt_BTJ, rest_BTN, down_BTP, bias_BT1, _ = F.linear(x_BTD, self.rows_RD).split(sizes, dim=-1)
        visual_BTJ = down_BTP @ self.s_BJP.mT + bias_BT1 * self.gate_B11
        return torch.cat([prompt_BTJ + visual_BTJ, rest_BTN], dim=-1)

    def read(self, a_BTN: Tensor) -> Tensor:
        """Return `a K`, `B×T×D`."""
        a_BTJ = a_BTN[..., : self.s_BJP.shape[1]]
        total_BT1 = a_BTJ.sum(dim=-1, keepdim=True) * self.gate_B11
        parts = [a_BTN, a_BTJ @ self.s_BJP, total_BT1]
        if filling := len(self.rows_RD) - sum(part.shape[-1] for part in parts):
            parts.append(a_BTN.new_zeros(*a_BTN.shape[:-1], filling))
        return torch.cat(parts, dim=-1) @ self.rows_RD

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """Return the products with P, with W2 and with S."""
        _, patches, rank = self.s_BJP.shape
        return [
            _read_product(rows, self.rows_RD[: self.num_prompts], left_grad),
            matmul("memory.read", rows, self.rows_RD.shape[1], rank, gradients=1 + int(left_grad)),
            matmul("memory.read", rows, rank, patches, gradients=2),
        ]


@dataclass(frozen=True)
class RebuiltSide:
    """The rebuilt form: K is built inside the layer that reads it, released, and built again in the backward pass.

    Attributes:
        s_BJP: S, the gate included.
        gate_B11: λ · ind.
        weights: the weights that all layers share.
    """

    s_BJP: Tensor
    gate_B11: Tensor
    weights: SideWeights

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Return `x Kᵀ`, `B×T×N`."""
        return self._product(x_BTD, True)

    def read(self, a_BTN: Tensor) -> Tensor:
        """Return `a K`, `B×T×D`."""
        return self._product(a_BTN, False)

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """Return the product with K, and that of building K."""
        samples, patches, rank = self.s_BJP.shape
        prompts_ND = self.weights.prompts_ND
        return [
            _read_product(rows, prompts_ND, left_grad),
            # If the left operand needs a gradient, the backward pass builds the matrix once more.
            matmul("memory.build", samples * patches, rank, prompts_ND.shape[1], gradients=2 + int(left_grad)),
        ]

    def _product(self, left: Tensor, transposed: bool) -> Tensor:
        shared = self.weights
        left = left.to(self.s_BJP.dtype)
        return _RebuiltProduct.apply(
            left, self.s_BJP, self.gate_B11, shared.prompts_ND, shared.weight_DP, shared.bias_D, transposed
        )


class _RebuiltProduct(torch.autograd.Function):
    """Computes `left @ K` or `left @ Kᵀ`. For the backward pass it saves what K is built from, not K."""

    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        s_BJP: Tensor,
        gate_B11: Tensor,
        prompts_ND: Tensor,
        weight_DP: Tensor,
        bias_D: Tensor,
        transposed: bool,
    ) -> Tensor:
        ctx.save_for_backward(left, s_BJP, gate_B11, prompts_ND, weight_DP, bias_D)
        ctx.transposed = transposed
        matrix_BND = SideWeights(prompts_ND, weight_DP, bias_D).matrix(s_BJP, gate_B11)
        return left @ (matrix_BND.mT if transposed else matrix_BND)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        left, s_BJP, gate_B11, prompts_ND, weight_DP, bias_D = ctx.saved_tensors
        (grad,) = gradients
        grad_left = None
        if ctx.needs_input_grad[0]:
            matrix_BND = SideWeights(prompts_ND, weight_DP, bias_D).matrix(s_BJP, gate_B11)
            grad_left = grad @ (matrix_BND if ctx.transposed else matrix_BND.mT)
        grad_BND = grad.mT @ left if ctx.transposed else left.mT @ grad
        visual_BJD = grad_BND[:, : s_BJP.shape[1]]
        rows_QD = visual_BJD.flatten(0, 1)
        grad_s_BJP = (rows_QD @ weight_DP).view_as(s_BJP)
        grad_weight_DP = rows_QD.T @ s_BJP.flatten(0, 1)
        grad_bias_D = (gate_B11 * visual_BJD.sum(dim=1, keepdim=True)).sum(dim=(0, 1))
        return grad_left, grad_s_BJP, None, grad_BND.sum(dim=0), grad_weight_DP, grad_bias_D, None


def _read_product(rows: int, matrix: Tensor, left_grad: bool) -> Product:
    """Return the product of `rows` rows with a matrix `…×N×D` or with its transpose."""
    length, width = matrix.shape[-2:]
    return matmul("memory.read", rows, length, width, gradients=1 + int(left_grad))


def cheapest_form(
    tokens: int, layers: int, patches: int, hidden_size: int, *, with_backward: bool, on_gpu: bool = False
) -> Form:
    """Return the form of a side that needs the fewest multiply-adds.

    The product with a matrix of `N` rows is part of every form and is left out.

    Divided by the projector's width, which all terms share, the numbers per sample are:

    - The factored form needs `T·(D + J)` in every layer.
    - Building K needs `J·D`, once for all layers that share it.
    - Training needs three times as much of either, for the two gradients. K of a single layer is built once more in the
      backward pass, because keeping it would take `B×N×D` per layer and side.
    - On a GPU, the multiply-adds of building K are weighted by `GPU_BUILD`.

    Args:
        tokens: T, the tokens per sample of the forward pass.
        layers: how many layers read the same entries.
        patches: J.
        hidden_size: D.
        with_backward: whether a backward pass will follow.
        on_gpu: whether a GPU computes the products.
    """
    passes = 3 if with_backward else 1
    built = (passes + int(with_backward and layers == 1)) * patches * hidden_size * (GPU_BUILD if on_gpu else 1)
    if passes * layers * tokens * (hidden_size + patches) <= built:
        return "factored"
    return "rebuilt" if layers == 1 else "built"
