"""DEHVF's input embedding network and hierarchical visual fuser.

Paper: "Dynamic Embedding of Hierarchical Visual Features for Efficient Vision-Language Fine-Tuning", Eq. (2)-(6).

Shape suffixes: B batch, Y decoder layers, S sides that take visual entries (keys, values), R fuser width,
G visual groups, K features of a group, C vision width, Q queries of a group, X blocks of the vision tower, J patches,
P projector width, E distinct fused features.
"""

import torch
from torch import Tensor, nn

from methods.checks import check_divisible
from methods.cost import Product, linear, matmul


class InputEmbeddingNetwork(nn.Module):
    """`z_{l,*} = MLP([e_l ; q_*])`: one query for each decoder layer and side, Eq. (2).

    `e_l` and `q_*` are learnable, R wide; the MLP is `2R → 2R → R` with one activation. The paper names none:
    GELU is our choice. With one side only, there is no `q_*` and the MLP is `R → R → R`.

    Args:
        num_layers: decoder layers (Y).
        num_sides: 2 for separate queries of keys and values, 1 for one query a layer.
        dim: R.
        position: whether a position embedding distinguishes the sides.
    """

    def __init__(self, num_layers: int, num_sides: int, dim: int, position: bool) -> None:
        super().__init__()
        width = 2 * dim if position else dim
        self.layer_embedding = nn.Parameter(torch.randn(num_layers, dim))
        self.position_embedding = nn.Parameter(torch.randn(num_sides, dim)) if position else None
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim))

    def forward(self) -> Tensor:
        """The queries, `Y×S×R` (S = 1 without a position embedding)."""
        layers_Y1R = self.layer_embedding[:, None]
        if self.position_embedding is None:
            return self.mlp(layers_Y1R)
        num_layers, num_sides = len(layers_Y1R), len(self.position_embedding)
        pairs = [layers_Y1R.expand(-1, num_sides, -1), self.position_embedding.expand(num_layers, -1, -1)]
        return self.mlp(torch.cat(pairs, dim=-1))

    def products(self, module: str) -> list[Product]:
        """The products of making all queries once, counted under the name `module`."""
        sides = 1 if self.position_embedding is None else len(self.position_embedding)
        rows = len(self.layer_embedding) * sides
        return [linear(module, layer, rows, input_grad=True) for layer in self.mlp if isinstance(layer, nn.Linear)]


class LearnableQueries(nn.Module):
    """The ablation "learnable tokens": a free query for each layer and side in place of the network."""

    def __init__(self, num_layers: int, num_sides: int, dim: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_layers, num_sides, dim))

    def forward(self) -> Tensor:
        """The queries, `Y×S×R`."""
        return self.queries

    def products(self, module: str) -> list[Product]:
        """An empty list: the queries are parameters."""
        return []


class FuserBlock(nn.Module):
    """Post-norm block: `q ← LN(q + CrossAttention(q, C, C))`, `q ← LN(q + FFN(q))`.

    Args:
        dim: R; the FFN is `R → 4R → R` with GELU.
        num_heads: attention heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.ffn_norm = nn.LayerNorm(dim)

    def forward(self, query_BQR: Tensor, context_BKR: Tensor) -> Tensor:
        """`B×Q×R` queries over `B×K×R` keys and values."""
        attended_BQR, _ = self.attention(query_BQR, context_BKR, context_BKR, need_weights=False)
        query_BQR = self.attention_norm(query_BQR + attended_BQR)
        return self.ffn_norm(query_BQR + self.ffn(query_BQR))

    def products(self, module: str, samples: int, queries: int, features: int) -> list[Product]:
        """The products of one forward.

        Args:
            module: the name under which they are counted.
            samples: B.
            queries: Q.
            features: K.
        """
        rows, dim = samples * queries, self.attention.embed_dim
        ffn = [linear(module, layer, rows, input_grad=True) for layer in self.ffn if isinstance(layer, nn.Linear)]
        return [
            matmul(module, 2 * rows, dim, dim, gradients=2),  # projections of the queries and of the output
            matmul(module, 2 * samples * features, dim, dim, gradients=2),  # projections to keys and values
            matmul(module, 2 * rows, dim, features, gradients=2),  # scores, and the weighted sum of the values
            *ffn,
        ]


class HierarchicalVisualFuser(nn.Module):
    """Weights over a group's features for every layer and side, Eq. (3)-(5).

    `C_m` is one linear map of the CLS tokens of group m's K features. After T blocks of cross-attention from
    `z_{l,*}` to `C_m`, with no further parameters, `α = softmax(q C_mᵀ / √R)`: each α >= 0, summing to 1 over K.
    All layers' queries go through one batched call: queries of one group never see those of another.

    Args:
        vision_width: C.
        dim: R.
        num_blocks: T.
        num_heads: attention heads of each block.
        num_groups: G; decoder layer l reads group `⌊l·G/Y⌋`.

    Raises:
        ValueError: the heads do not divide R.
    """

    def __init__(self, vision_width: int, dim: int, num_blocks: int, num_heads: int, num_groups: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"fuser_heads {num_heads} do not divide fuser_dim {dim}; choose a divisor of it")
        self.projection = nn.Linear(vision_width, dim)
        self.blocks = nn.ModuleList(FuserBlock(dim, num_heads) for _ in range(num_blocks))
        self.num_groups = num_groups

    def forward(self, queries_YSR: Tensor, cls_BGKC: Tensor) -> Tensor:
        """Fusion weights.

        Args:
            queries_YSR: one query for each decoder layer and side.
            cls_BGKC: CLS tokens of each group's features.

        Returns:
            α as `B×Y×S×K`.
        """
        batch, groups, features, _ = cls_BGKC.shape
        layers, sides, dim = queries_YSR.shape
        context_GKR = self.projection(cls_BGKC).flatten(0, 1)
        query_GQR = queries_YSR.reshape(1, groups, -1, dim).expand(batch, -1, -1, -1).flatten(0, 1)
        for block in self.blocks:
            query_GQR = block(query_GQR, context_GKR)
        weights_GQK = (query_GQR @ context_GKR.mT * dim**-0.5).softmax(dim=-1)
        return weights_GQK.reshape(batch, layers, sides, features)

    def products(self, module: str, images: int, queries: int, features: int) -> list[Product]:
        """The products of one forward.

        Args:
            module: the name under which they are counted.
            images: B.
            queries: queries of each group (Q).
            features: features of each group (K).
        """
        groups = images * self.num_groups
        context = linear(module, self.projection, groups * features, input_grad=True)
        weights = matmul(module, groups * queries, self.projection.out_features, features, gradients=2)
        found = [context]
        for block in self.blocks:
            assert isinstance(block, FuserBlock)
            found += block.products(module, groups, queries, features)
        return [*found, weights]


def visual_groups(num_blocks: int, num_groups: int) -> list[list[int]]:
    """1-based CLIP blocks of each visual group: its share of the blocks, then the penultimate block, Eq. (3)-(4).

    The last group holds the penultimate block twice, by construction.

    Raises:
        ValueError: the blocks do not divide into `num_groups` equal groups.
    """
    check_divisible("the vision tower's blocks", num_blocks, num_groups, "num_groups")
    size = num_blocks // num_groups
    return [[*range(m * size + 1, (m + 1) * size + 1), num_blocks - 1] for m in range(num_groups)]


def fuse(weights_BYSK: Tensor, members_GKX: Tensor, hidden_BXJP: Tensor) -> Tensor:
    """`Σ_k α_k H_k` over the group that each decoder layer reads: `B×E×J×P`, E = Y·S, layer-major.

    One product over all blocks, whose weights are 0 outside the group, in place of a copy of every group.

    Args:
        weights_BYSK: α.
        members_GKX: 1 where block X is feature K of group G.
        hidden_BXJP: of all blocks.
    """
    weights_BGQK = weights_BYSK.unflatten(1, (len(members_GKX), -1)).flatten(2, 3)
    mix_BEX = (weights_BGQK @ members_GKX).flatten(1, 2)
    return (mix_BEX @ hidden_BXJP.flatten(2)).unflatten(2, hidden_BXJP.shape[2:])


def fuse_products(
    module: str, members_GKX: Tensor, images: int, queries: int, entries: int, *, weights_grad: bool
) -> list[Product]:
    """The two products of `fuse`.

    Args:
        module: the name under which they are counted.
        members_GKX: as given to `fuse`.
        images: B.
        queries: fused features of each group and image (Q).
        entries: entries of one feature (J·P).
        weights_grad: whether α needs a gradient in training.
    """
    groups, features, blocks = members_GKX.shape
    rows = images * groups * queries
    return [
        matmul(module, rows, features, blocks, gradients=int(weights_grad)),
        matmul(module, rows, blocks, entries, gradients=1 + int(weights_grad)),
    ]
