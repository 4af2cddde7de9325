"""DEHVF's input embedding network and hierarchical visual fuser.

Paper: "Dynamic Embedding of Hierarchical Visual Features for Efficient Vision-Language Fine-Tuning", Eq. (2)-(6).

Shape suffixes: B batch, Y decoder layers, S sides that take visual entries (keys, values), R fuser width,
G visual groups, K features of a group, C vision width, Q queries of a group, X blocks of the vision tower, J patches,
P projector width, E distinct fused features. The fuser's blocks take each group of each sample as a sample of its own:
the first dimension of `context_GKR`, `query_GQR` and `weights_GQK` is B·G, and so is B in `FuserBlock`.
"""

import torch
from torch import Tensor, nn

from methods.checks import check_divisible
from methods.cost import Product, linear, matmul


class InputEmbeddingNetwork(nn.Module):
    """Makes one query for each decoder layer and side: `z_{l,*} = MLP([e_l ; q_*])`, Eq. (2).

    The layer embedding `e_l` and the position embedding `q_*` are learnable vectors of width R. The MLP is
    `2R → 2R → R` with one activation between. The paper does not name the activation; GELU is our choice. Without a
    position embedding the MLP is `R → R → R`.

    Args:
        num_layers: decoder layers (Y).
        num_sides: 2 for separate queries of keys and values, 1 for one query per layer.
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
        """Return the queries, `Y×S×R`; S is 1 without a position embedding."""
        layers_Y1R = self.layer_embedding[:, None]
        if self.position_embedding is None:
            return self.mlp(layers_Y1R)
        num_layers, num_sides = len(layers_Y1R), len(self.position_embedding)
        pairs = [layers_Y1R.expand(-1, num_sides, -1), self.position_embedding.expand(num_layers, -1, -1)]
        return self.mlp(torch.cat(pairs, dim=-1))

    def products(self, module: str) -> list[Product]:
        """Return the products of making all queries once, counted under the name `module`."""
        sides = 1 if self.position_embedding is None else len(self.position_embedding)
        rows = len(self.layer_embedding) * sides
        return [linear(module, layer, rows, input_grad=True) for layer in self.mlp if isinstance(layer, nn.Linear)]


class LearnableQueries(nn.Module):
    """The ablation "learnable tokens": a free query for each layer and side, in place of the network.

    Args:
        num_layers: decoder layers (Y).
        num_sides: sides that have a query of their own (S).
        dim: R.
    """

    def __init__(self, num_layers: int, num_sides: int, dim: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_layers, num_sides, dim))

    def forward(self) -> Tensor:
        """Return the queries, `Y×S×R`."""
        return self.queries

    def products(self, module: str) -> list[Product]:
        """Return an empty list: the queries are parameters, so nothing is computed."""
        return []


class FuserBlock(nn.Module):
    """A post-norm block: `q ← LN(q + CrossAttention(q, C, C))`, then `q ← LN(q + FFN(q))`.

    The FFN is `R → 4R → R` with GELU.

    Args:
        dim: R.
        num_heads: attention heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.ffn_norm = nn.LayerNorm(dim)

    def forward(self, query_BQR: Tensor, context_BKR: Tensor) -> Tensor:
        """Let the queries attend to the features.

        Args:
            query_BQR: queries.
            context_BKR: the features, as keys and values.

        Returns:
            The new queries, `B×Q×R`.
        """
        attended_BQR, _ = self.attention(query_BQR, context_BKR, context_BKR, need_weights=False)
        query_BQR = self.attention_norm(query_BQR + attended_BQR)
        return self.ffn_norm(query_BQR + self.ffn(query_BQR))

    def products(self, module: str, samples: int, queries: int, features: int) -> list[Product]:
        """Return the products of one forward pass.

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
    """Computes the weights of a group's features for every layer and side, Eq. (3)-(5).

    `C_m` is a linear map of the CLS tokens of the K features of group m. The query `z_{l,*}` attends to `C_m` in T
    blocks. The weights are then `α = softmax(q C_mᵀ / √R)`, with no further parameters: each α is at least 0, and they
    sum to 1 over K. The queries of all layers go through one batched call, in which queries of one group never see the
    features of another.

    Args:
        vision_width: C.
        dim: R.
        num_blocks: T.
        num_heads: attention heads of each block.
        num_groups: G; decoder layer l reads group `⌊l·G/Y⌋`.

    Raises:
        ValueError: the number of heads does not divide R.
    """

    def __init__(self, vision_width: int, dim: int, num_blocks: int, num_heads: int, num_groups: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"fuser_heads {num_heads} do not divide fuser_dim {dim}; choose a divisor of it")
        self.projection = nn.Linear(vision_width, dim)
        self.blocks = nn.ModuleList(FuserBlock(dim, num_heads) for _ in range(num_blocks))
        self.num_groups = num_groups

    def forward(self, queries_YSR: Tensor, cls_BGKC: Tensor) -> Tensor:
        """Return the fusion weights.

        Args:
            queries_YSR: one query for each decoder layer and side.
            cls_BGKC: CLS tokens of the features of each group.

        Returns:
            α, `B×Y×S×K`.
        """
        batch, groups, features, _ = cls_BGKC.shape
        layers, sides, dim = queries_YSR.shape
        context_GKR = self.projection(cls_BGKC).flatten(0, 1)
        query_GQR = by_group(queries_YSR[None], groups).flatten(2, 3).expand(batch, -1, -1, -1).flatten(0, 1)
        for block in self.blocks:
            query_GQR = block(query_GQR, context_GKR)
        weights_GQK = (query_GQR @ context_GKR.mT * dim**-0.5).softmax(dim=-1)
        return by_layer(weights_GQK.reshape(batch, groups, -1, sides, features), layers)

    def products(self, module: str, images: int, queries: int, features: int) -> list[Product]:
        """Return the products of one forward pass.

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
    """Return the CLIP blocks of each visual group, counted from 1, Eq. (3)-(4).

    Each group holds its equal share of the blocks, then the penultimate block. The last group therefore holds the
    penultimate block twice.

    Args:
        num_blocks: blocks of the vision tower.
        num_groups: G.

    Raises:
        ValueError: the blocks do not divide into `num_groups` equal groups.
    """
    check_divisible("the vision tower's blocks", num_blocks, num_groups, "num_groups")
    size = num_blocks // num_groups
    return [[*range(m * size + 1, (m + 1) * size + 1), num_blocks - 1] for m in range(num_groups)]


def layer_groups(num_layers: int, num_groups: int) -> list[int]:
    """Return the group that each decoder layer reads: `⌊l·G/Y⌋` for layer l, counted from 0.

    Every group is read, and the numbers of layers that read two groups differ by one at most.

    Args:
        num_layers: Y.
        num_groups: G.

    Raises:
        ValueError: there are fewer layers than groups.
    """
    if num_layers < num_groups:
        raise ValueError(
            f"{num_layers} decoder layers cannot read {num_groups} visual groups; "
            f"set num_groups to at most {num_layers}"
        )
    return [layer * num_groups // num_layers for layer in range(num_layers)]


def layers_per_group(num_layers: int, num_groups: int) -> int:
    """Return how many decoder layers read one group at most."""
    return -(-num_layers // num_groups)


def by_group(values_BYS: Tensor, num_groups: int) -> Tensor:
    """Return values of decoder layers, `B×Y×…`, by the group that the layer reads: `B×G×(layers of a group)×…`.

    A group that fewer layers read than another is filled up with zeros.
    """
    num_layers = values_BYS.shape[1]
    if num_layers % num_groups == 0:
        return values_BYS.unflatten(1, (num_groups, -1))
    room = layers_per_group(num_layers, num_groups)
    filled = []
    for part in values_BYS.split(_group_sizes(num_layers, num_groups), dim=1):
        empty = part.new_zeros(len(part), room - part.shape[1], *part.shape[2:])
        filled.append(torch.cat([part, empty], dim=1))
    return torch.stack(filled, dim=1)


def by_layer(values_BGY: Tensor, num_layers: int) -> Tensor:
    """Return values by decoder layer, `B×Y×…`, from the form that `by_group` returns."""
    num_groups = values_BGY.shape[1]
    if num_layers % num_groups == 0:
        return values_BGY.flatten(1, 2)
    sizes = _group_sizes(num_layers, num_groups)
    return torch.cat([values_BGY[:, group, :size] for group, size in enumerate(sizes)], dim=1)


def _group_sizes(num_layers: int, num_groups: int) -> list[int]:
    """Return how many decoder layers read each group."""
    groups = layer_groups(num_layers, num_groups)
    return [groups.count(group) for group in range(num_groups)]


def fuse(weights_BYSK: Tensor, members_GKX: Tensor, hidden_BXJP: Tensor) -> Tensor:
    """Return `Σ_k α_k H_k`, the sum over the group that each decoder layer reads (Eq. 6).

    The sum is one matrix product over all blocks, whose weights are 0 outside the group. This avoids a copy of the
    features of every group.

    Args:
        weights_BYSK: α.
        members_GKX: 1 where block X is feature K of group G, else 0.
        hidden_BXJP: the projected features of all blocks.

    Returns:
        `B×E×J×P`, where E = Y·S counts the layers and, within a layer, the sides.
    """
    layers, sides = weights_BYSK.shape[1:3]
    weights_BGQK = by_group(weights_BYSK, len(members_GKX)).flatten(2, 3)
    mix_BEX = by_layer((weights_BGQK @ members_GKX).unflatten(2, (-1, sides)), layers).flatten(1, 2)
    return (mix_BEX @ hidden_BXJP.flatten(2)).unflatten(2, hidden_BXJP.shape[2:])


def fuse_products(
    module: str, members_GKX: Tensor, images: int, queries: int, fused: int, entries: int, *, weights_grad: bool
) -> list[Product]:
    """Return the two products of `fuse`.

    Args:
        module: the name under which they are counted.
        members_GKX: as given to `fuse`.
        images: B.
        queries: rows of each group and image (Q).
        fused: fused features of each image (E).
        entries: entries of one feature (J·P).
        weights_grad: whether α needs a gradient in training.
    """
    groups, features, blocks = members_GKX.shape
    return [
        matmul(module, images * groups * queries, features, blocks, gradients=int(weights_grad)),
        matmul(module, images * fused, blocks, entries, gradients=1 + int(weights_grad)),
    ]
