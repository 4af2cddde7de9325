"""Small trainable modules that several methods share: the projector, the parallel CLIP adapter, the routed adapter.

Shape suffixes: B batch, J tokens of the vision tower, C vision width, D hidden_size, P projector width,
A adapter bottleneck, E experts of a routed adapter, G groups of its up-projection, O = width / G.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.cost import Product, linear, matmul


class Projector(nn.Module):
    """Maps vision width to hidden_size: `f(x) = W2 · SiLU(W1 x + b1) + b2`.

    Weights start Xavier-uniform and biases at zero. One projector serves all layers of the language model. The form is
    that of LaVIN (Luo et al. 2023) and MemVP (Jie et al. 2024), which use P = 128.

    Args:
        vision_width: width of the visual features (C).
        projector_dim: width between the two layers (P).
        hidden_size: width of the language model (D).
    """

    def __init__(self, vision_width: int, projector_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.down = nn.Linear(vision_width, projector_dim)
        self.up = nn.Linear(projector_dim, hidden_size)
        for layer in (self.down, self.up):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x_BJC: Tensor) -> Tensor:
        """Project `…×C` to `…×D`."""
        return self.up(F.silu(self.down(x_BJC)))

    def products(self, module: str, rows: int, *, input_grad: bool) -> list[Product]:
        """Return the products of both layers.

        Args:
            module: the name under which they are counted.
            rows: vectors that are projected.
            input_grad: whether the input needs a gradient in training.
        """
        return [
            linear(module, self.down, rows, input_grad=input_grad),
            linear(module, self.up, rows, input_grad=True),
        ]


class ParallelAdapter(nn.Module):
    """A bottleneck in parallel with the FFN of a CLIP block: `scale · B(dropout(GELU(A u)))`.

    There are no biases, and GELU is the exact (erf) one. As in MemVP's code, `A` keeps torch's default initialisation
    of a linear layer, which is uniform with standard deviation `1 / √(3·C)`, and `B` starts at zero. DEHVF describes
    the adapter in the words "we add parallel adapters to the visual encoder's FFN".

    Args:
        width: vision width (C).
        bottleneck: width between the two layers (A).
        scale: factor on the output.
        dropout: probability of dropping an entry of the bottleneck.
    """

    def __init__(self, width: int, bottleneck: int = 12, scale: float = 0.1, dropout: float = 0.1) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck, bias=False)
        self.up = nn.Linear(bottleneck, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        nn.init.zeros_(self.up.weight)

    def forward(self, u_BJC: Tensor) -> Tensor:
        """Map the FFN's input, `…×C`, to what is added to its output, `…×C`."""
        return self.up(self.dropout(F.gelu(self.down(u_BJC)))) * self.scale

    def products(self, module: str, rows: int, *, input_grad: bool) -> list[Product]:
        """Return the products of both layers; the arguments are those of `Projector.products`."""
        return [
            linear(module, self.down, rows, input_grad=input_grad),
            linear(module, self.up, rows, input_grad=True),
        ]


class MLPWithAdapter(nn.Module):
    """The frozen FFN of a CLIP block with a parallel adapter on the same input: `mlp(u) + adapter(u)`.

    Args:
        mlp: the frozen FFN.
        adapter: the adapter.
    """

    def __init__(self, mlp: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp
        self.adapter = adapter

    def forward(self, u_BJC: Tensor) -> Tensor:
        """Map `…×C` to `…×C`."""
        return self.mlp(u_BJC) + self.adapter(u_BJC)


def attach_parallel_adapters(
    vision: Any, num_blocks: int, bottleneck: int, scale: float, dropout: float
) -> nn.ModuleList:
    """Add a parallel adapter to the FFN of each of the first blocks of a vision tower.

    Args:
        vision: a `methods.base.VisionTower`, which is changed in place.
        num_blocks: how many blocks get an adapter.
        bottleneck, scale, dropout: as in `ParallelAdapter`.

    Returns:
        The adapters, one per block.
    """
    adapters = nn.ModuleList(ParallelAdapter(vision.width, bottleneck, scale, dropout) for _ in range(num_blocks))
    for block, adapter in zip(vision.blocks, adapters, strict=False):
        block.mlp = MLPWithAdapter(block.mlp, adapter)
    return adapters


def parallel_adapter_products(module: str, adapters: Iterable[Any], rows: int) -> list[Product]:
    """Return the products of the parallel adapters of consecutive CLIP blocks, from the first block on.

    The input of the first adapter needs no gradient, because no trained module precedes it. The others' inputs do.

    Args:
        module: the name under which they are counted.
        adapters: a `ParallelAdapter` for each block.
        rows: tokens of all images together, CLS included.
    """
    return [
        product
        for index, adapter in enumerate(adapters)
        for product in adapter.products(module, rows, input_grad=index > 0)
    ]


class RoutedAdapter(nn.Module):
    """LaVIN's RepAdapter with a router: the input plus low-rank updates of it, mixed by routing weights.

    With a = dropout(A x + b_A), the output is `x + s · Σ_e w_e · (B_e a + b_e)`. Each of the G parts of the output
    reads its own part of a. There is no activation. `A` starts Xavier-uniform; its bias, `B_e` and `b_e` start at zero.
    Source: Luo et al. 2023, arXiv:2305.15023, Eq. (5)-(7).

    Args:
        width: width of the input and the output (C).
        bottleneck: width between the two maps (A).
        groups: G, which must divide both widths.
        scale: s.
        temperature: τ of the routing softmax.
        dropout: probability of dropping an entry of the bottleneck.

    Raises:
        ValueError: `groups` does not divide `width` or does not divide `bottleneck`.
    """

    experts = 2

    def __init__(
        self, width: int, bottleneck: int, groups: int, scale: float, temperature: float, dropout: float
    ) -> None:
        super().__init__()
        self.check_groups(width, bottleneck, groups)
        self.down = nn.Linear(width, bottleneck)
        self.up_EGOA = nn.Parameter(torch.zeros(self.experts, groups, width // groups, bottleneck // groups))
        self.up_bias_EC = nn.Parameter(torch.zeros(self.experts, width))
        # Keep torch's random initialisation. With equal routing weights the experts, which all start at zero, would get
        # equal gradients and never differ.
        self.router = nn.Linear(width, self.experts)
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        self.temperature = temperature
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    @staticmethod
    def check_groups(width: int, bottleneck: int, groups: int) -> None:
        """Raise a ValueError unless `groups` divides `width` and `bottleneck`."""
        if width % groups or bottleneck % groups:
            raise ValueError(
                f"{groups} groups must divide width {width} and bottleneck {bottleneck}; choose a divisor of both"
            )

    def route(self, token: Tensor) -> Tensor:
        """Return the routing weights of a token, `w = softmax(E t / τ)`: `…×C` to `…×E`."""
        return torch.softmax(self.router(token) / self.temperature, dim=-1)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Adapt `x`.

        Args:
            x: `…×C`.
            weights: routing weights, `…×E`, broadcast against `x`.

        Returns:
            `…×C`, in the dtype of `x`.
        """
        a_GA = self.dropout(self.down(x)).unflatten(-1, (self.up_EGOA.shape[1], -1))
        weights = weights.to(a_GA.dtype)
        mixed_EGA = weights[..., :, None, None] * a_GA[..., None, :, :]
        out = torch.einsum("...ega,egoa->...go", mixed_EGA, self.up_EGOA).flatten(-2) + weights @ self.up_bias_EC
        return x + (self.scale * out).to(x.dtype)

    def products(
        self, module: str, rows: int, weight_rows: int, *, input_grad: bool, routed: bool = True
    ) -> list[Product]:
        """Return the products of `forward` and, if `routed`, those of `route`.

        Args:
            module: the name under which they are counted.
            rows: vectors that are adapted.
            weight_rows: rows of routing weights.
            input_grad: whether the input needs a gradient in training.
            routed: whether the routing weights are computed in this forward pass.
        """
        experts, groups, columns, inner = self.up_EGOA.shape
        products = [
            linear(module, self.down, rows, input_grad=input_grad),
            # Each group of the output reads its own part of every expert's bottleneck.
            matmul(module, groups * rows, experts * inner, columns, gradients=2),
            matmul(module, weight_rows, experts, groups * columns, gradients=2),
        ]
        if routed:
            products.append(linear(module, self.router, weight_rows, input_grad=input_grad))
        return products


class NormWithRoutedAdapter(nn.Module):
    """The frozen norm before the attention of a CLIP block, followed by a routed adapter.

    Each token is routed by its own feature.

    Args:
        norm: the frozen norm.
        adapter: the adapter.
    """

    def __init__(self, norm: nn.Module, adapter: RoutedAdapter) -> None:
        super().__init__()
        self.norm = norm
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """Map `…×C` to `…×C`."""
        u = self.norm(x)
        return self.adapter(u, self.adapter.route(u))
