"""One side of a layer's memory, its matrix `K = λ · ind · [f(V); 0] + P`, in forms of equal output.

With `S = gate · SiLU(W1 V + b1)`, `gate = λ · ind`, the visual rows are `S W2ᵀ + gate · b2`: apart from the prompts,
`K` has rank P. So it can be built, once for all layers that read it or anew inside one layer; or the products with it
can go through the rank:

    x Kᵀ = x·Pᵀ + (x W2) Sᵀ + gate · x·b2        a K = a P + (a S) W2ᵀ + gate · (Σ a) b2

where the products with P, W2 and b2 are one, with their rows put together: `[P; W2ᵀ; b2]`. `cheapest_form` counts.

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
"""Rows of 16 bytes are what the matrix units of a GPU load; other rows take a slower kernel."""
GPU_BUILD = 8
"""What building the matrix takes on a GPU, in the time of its multiply-adds at the peak: it is written and gone over
some five times, and in the time of one pass over an element in bfloat16 an H100 or H200 does, by its data sheet, two to
three hundred multiply-adds, twice the usual P. The low end of that."""


class MemorySide(Protocol):
    """The keys or the values of one layer: products with its matrix, `N×D` a sample."""

    def scores(self, x_BTD: Tensor) -> Tensor:
        """`x Kᵀ`, `B×T×N`."""
        ...

    def read(self, a_BTN: Tensor) -> Tensor:
        """`a K`, `B×T×D`."""
        ...

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """The products of `scores`, which are as large as those of `read`.

        Args:
            rows: columns of all samples together (B·T).
            left_grad: whether what the matrix is multiplied with (x or a) needs a gradient in training.
        """
        ...


@dataclass(frozen=True)
class PromptSide:
    """A side without visual entries: the position prompts alone."""

    prompts_ND: Tensor

    def scores(self, x_BTD: Tensor) -> Tensor:
        """`x Pᵀ`."""
        return F.linear(x_BTD, self.prompts_ND)

    def read(self, a_BTN: Tensor) -> Tensor:
        """`a P`."""
        return a_BTN @ self.prompts_ND

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """The product with P."""
        return [_read_product(rows, self.prompts_ND, left_grad)]


@dataclass(frozen=True)
class BuiltSide:
    """The matrix itself, which all layers with equal entries share and the backward pass keeps."""

    matrix_BND: Tensor

    def scores(self, x_BTD: Tensor) -> Tensor:
        """`x Kᵀ`."""
        return x_BTD @ self.matrix_BND.mT

    def read(self, a_BTN: Tensor) -> Tensor:
        """`a K`."""
        return a_BTN @ self.matrix_BND

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """The product with K; building K is counted once for all layers, in `methods.memory.memory_cost`."""
        return [_read_product(rows, self.matrix_BND, left_grad)]


@dataclass(frozen=True)
class SideWeights:
    """What the sides of all layers share, in the dtype of the visual entries once for all of them.

    Attributes:
        prompts_ND: position prompts of this side.
        weight_DP, bias_D: the projector's second layer.
    """

    prompts_ND: Tensor
    weight_DP: Tensor
    bias_D: Tensor

    @cached_property
    def rows_RD(self) -> Tensor:
        """`[P; W2ᵀ; b2]`, with rows of zeros up to a multiple of `GPU_ROWS` on a GPU."""
        rows = [self.prompts_ND, self.weight_DP.T, self.bias_D[None]]
        filling = -sum(map(len, rows)) % GPU_ROWS
        if filling and self.bias_D.is_cuda:
            rows.append(self.bias_D.new_zeros(filling, len(self.bias_D)))
        return torch.cat(rows)

    def matrix(self, s_BJP: Tensor, gate_B11: Tensor) -> Tensor:
        """`K`, `B×N×D`."""
        patches = s_BJP.shape[1]
        visual_BJD = F.linear(s_BJP, self.weight_DP) + gate_B11 * self.bias_D + self.prompts_ND[:patches]
        if patches == len(self.prompts_ND):
            return visual_BJD
        rest_BND = self.prompts_ND[patches:].expand(len(s_BJP), -1, -1)
        return torch.cat([visual_BJD, rest_BND], dim=1)


@dataclass(frozen=True)
class FactoredSide:
    """Products through the projector's rank; K is never built.

    Attributes:
        s_BJP: `λ · ind · SiLU(W1 V + b1)`.
        gate_B11: `λ · ind`, the factor of the projector's bias.
        rows_RD: `SideWeights.rows_RD`.
        num_prompts: N, those of its rows that are prompts.
    """

    s_BJP: Tensor
    gate_B11: Tensor
    rows_RD: Tensor
    num_prompts: int

    def scores(self, x_BTD: Tensor) -> Tensor:
        """`x Kᵀ`."""
        patches, rank = self.s_BJP.shape[1:]
        rest = self.num_prompts - patches
        sizes = [patches, rest, rank, 1, len(self.rows_RD) - self.num_prompts - rank - 1]
        prompt_BTJ, rest_BTN, down_BTP, bias_BT1, _ = F.linear(x_BTD, self.rows_RD).split(sizes, dim=-1)
        visual_BTJ = down_BTP @ self.s_BJP.mT + bias_BT1 * self.gate_B11
        return torch.cat([prompt_BTJ + visual_BTJ, rest_BTN], dim=-1)

    def read(self, a_BTN: Tensor) -> Tensor:
        """`a K`."""
        a_BTJ = a_BTN[..., : self.s_BJP.shape[1]]
        total_BT1 = a_BTJ.sum(dim=-1, keepdim=True) * self.gate_B11
        parts = [a_BTN, a_BTJ @ self.s_BJP, total_BT1]
        if filling := len(self.rows_RD) - sum(part.shape[-1] for part in parts):
            parts.append(a_BTN.new_zeros(*a_BTN.shape[:-1], filling))
        return torch.cat(parts, dim=-1) @ self.rows_RD

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """The products with P, with W2 and with S."""
        _, patches, rank = self.s_BJP.shape
        return [
            _read_product(rows, self.rows_RD[: self.num_prompts], left_grad),
            matmul("memory.read", rows, self.rows_RD.shape[1], rank, gradients=1 + int(left_grad)),
            matmul("memory.read", rows, rank, patches, gradients=2),
        ]


@dataclass(frozen=True)
class RebuiltSide:
    """K built inside the layer that reads it, forgotten, and built again in the backward pass."""

    s_BJP: Tensor
    gate_B11: Tensor
    weights: SideWeights

    def scores(self, x_BTD: Tensor) -> Tensor:
        """`x Kᵀ`."""
        return self._product(x_BTD, True)

    def read(self, a_BTN: Tensor) -> Tensor:
        """`a K`."""
        return self._product(a_BTN, False)

    def products(self, rows: int, *, left_grad: bool) -> list[Product]:
        """The product with K, and building K."""
        samples, patches, rank = self.s_BJP.shape
        prompts_ND = self.weights.prompts_ND
        return [
            _read_product(rows, prompts_ND, left_grad),
            # Where the left side needs a gradient, the backward pass builds the matrix once more.
            matmul("memory.build", samples * patches, rank, prompts_ND.shape[1], gradients=2 + int(left_grad)),
        ]

    def _product(self, left: Tensor, transposed: bool) -> Tensor:
        shared = self.weights
        left = left.to(self.s_BJP.dtype)
        return _RebuiltProduct.apply(
            left, self.s_BJP, self.gate_B11, shared.prompts_ND, shared.weight_DP, shared.bias_D, transposed
        )


class _RebuiltProduct(torch.autograd.Function):
    """`left @ K`, or `left @ Kᵀ`; keeps what K is built from for the backward pass instead of K."""

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
    """The product of `rows` rows with a matrix `…×N×D`, in either direction."""
    length, width = matrix.shape[-2:]
    return matmul("memory.read", rows, length, width, gradients=1 + int(left_grad))


def cheapest_form(
    tokens: int, layers: int, patches: int, hidden_size: int, *, with_backward: bool, on_gpu: bool = False
) -> Form:
    """The form of a side that costs fewest multiply-adds beyond reading a matrix that is there.

    In units of P: the factored form costs `T·(D + J)` in every layer, and in training three times that; building costs
    `J·D` once for all layers that share the matrix, and in training three times that. A matrix of one layer alone is
    built a second time in the backward pass: kept, it would be `B×N×D` a layer and side. On a GPU, building costs
    `GPU_BUILD` times its multiply-adds.

    Args:
        tokens: T, columns of the forward.
        layers: layers that read the same entries.
        patches: J.
        hidden_size: D.
        with_backward: a backward pass will follow.
        on_gpu: computed by matrix units that are fast beside the memory.
    """
    passes = 3 if with_backward else 1
    built = (passes + int(with_backward and layers == 1)) * patches * hidden_size * (GPU_BUILD if on_gpu else 1)
    if passes * layers * tokens * (hidden_size + patches) <= built:
        return "factored"
    return "rebuilt" if layers == 1 else "built"
