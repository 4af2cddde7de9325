"""DEHVF: dynamic embedding of hierarchical visual features.

Paper: Wei, Yang, Zhou, Yang, Li, Zhang, Qiu, "Dynamic Embedding of Hierarchical Visual Features for Efficient
Vision-Language Fine-Tuning", 2025. https://arxiv.org/abs/2508.17638 (the seed paper of this benchmark; no code was
published). Equations (1)-(13).

What the paper leaves open, and what is taken here:
- The activation of the input embedding network: GELU.
- The sizes of the fuser and the network: the ones that reproduce every printed count of its Table 4 at once.
- Memory length at 13B: 400, as its parameter count says; its Table 5 says 420.
- The printed counts hold MemVP's modality embedding, which no forward uses: `reference_only` names it, and it does not
  exist here.

Exact algebra instead of the printed order of operations: the projector's first layer is linear, so each distinct
feature is projected once and fused in P dimensions; the second layer is never applied to a fused feature
(`methods.memory`); the fuser runs once per image for all layers.

Shape suffixes: B batch, J patches (or tokens of the vision tower), C vision width, P projector width, X blocks of the
vision tower, G visual groups, K features of a group, Y decoder layers, S sides (keys, values), Q queries of a group,
E distinct fused features.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from methods.adapters import Projector, attach_parallel_adapters, parallel_adapter_products
from methods.base import Backbone, Batch, InputSequence, MethodConfig, Source, VisualFeatures, plain_sequence
from methods.checks import check_divisible
from methods.cost import Entry, ImageCost, TokenCost, linear
from methods.fuser import (
    HierarchicalVisualFuser,
    InputEmbeddingNetwork,
    LearnableQueries,
    fuse,
    fuse_products,
    visual_groups,
)
from methods.memory import (
    MemoryConfig,
    PositionPrompts,
    VisualMemory,
    attach_memory,
    check_memory_length,
    layer_memories,
    memory_cost,
)


class DEHVFConfig(MemoryConfig):
    """Sizes, scales and ablations of DEHVF; the defaults are the paper's at 7B."""

    num_groups: int = Field(4, ge=1, description="visual groups M")
    fuser_dim: int = Field(64, ge=1, description="width r of the fuser and of the layer embeddings")
    fuser_blocks: int = Field(4, ge=0, description="cross-attention blocks of the fuser")
    fuser_heads: int = Field(4, ge=1, description="attention heads of the fuser")
    fusion: Literal["adaptive", "mean", "penultimate", "none"] = Field(
        "adaptive", description="how a group's features become one; none: position prompts alone, no image"
    )
    query: Literal["network", "learnable"] = Field("network", description="where the fuser's queries come from")
    separate_queries: bool = Field(True, description="a query for keys and one for values, not one for both")
    prompts_in: Literal["both", "keys", "values"] = Field("both", description="sides that take visual entries")


class DEHVF(nn.Module):
    """DEHVF attached to a backbone.

    Args:
        backbone: the frozen backbone; its decoder layers and CLIP blocks are wrapped in place.
        config: sizes, scales and ablations.

    Raises:
        ValueError: layers or blocks do not divide into the groups, or the memory is shorter than the patches.
    """

    name: ClassVar[str] = "dehvf"
    title: ClassVar[str] = "DEHVF"
    source: ClassVar[Source] = Source(
        paper="Dynamic Embedding of Hierarchical Visual Features for Efficient Vision-Language Fine-Tuning "
        "(Wei et al. 2025)",
        url="https://arxiv.org/abs/2508.17638",
        summary="per-layer fusion of CLIP features from all depths as extra key-value entries of every FFN",
    )
    Config: ClassVar[type[MethodConfig]] = DEHVFConfig
    ablations: ClassVar[dict[str, dict[str, Any]]] = {
        "no_visual_prompts": {"fusion": "none"},
        "no_adaptive_weights": {"fusion": "mean"},
        "no_multi_features": {"fusion": "penultimate"},
        "shared_query": {"separate_queries": False},
        "keys_only": {"prompts_in": "keys"},
        "values_only": {"prompts_in": "values"},
        "learnable_tokens": {"query": "learnable"},
    }
    index_GK: Tensor
    members_GKX: Tensor

    def __init__(self, backbone: Backbone, config: DEHVFConfig) -> None:
        super().__init__()
        vision = backbone.vision
        check_memory_length(config.memory_length, vision.num_patches)
        check_divisible("the language model's layers", backbone.num_layers, config.num_groups, "num_groups")
        self.num_blocks = vision.num_layers
        self.groups = visual_groups(vision.num_layers, config.num_groups)
        self.register_buffer("index_GK", torch.tensor(self.groups) - 1, persistent=False)
        self.register_buffer("members_GKX", F.one_hot(self.index_GK, self.num_blocks).float(), persistent=False)
        self.config = config
        self.num_layers = backbone.num_layers
        self.hidden_size = backbone.hidden_size
        self.vision_width = vision.width
        self.num_patches = vision.num_patches
        self.blocks = self._vision_blocks()
        self.slots = self._slots()
        projector = Projector(vision.width, config.projector_dim, backbone.hidden_size) if self.blocks else None
        self.memory = VisualMemory(
            PositionPrompts(config.memory_length, backbone.hidden_size, config.prompt_std),
            projector,
            config.memory_scale,
            config.memory_dropout,
        )
        if config.fusion == "adaptive":
            self.queries = self._query_network()
            self.fuser = HierarchicalVisualFuser(
                vision.width, config.fuser_dim, config.fuser_blocks, config.fuser_heads, config.num_groups
            )
        self.vision_adapters = attach_parallel_adapters(
            vision, max(self.blocks, default=0), config.adapter_dim, config.adapter_scale, config.adapter_dropout
        )
        attach_memory(backbone, self.memory)

    def _vision_blocks(self) -> list[int]:
        """The 1-based CLIP blocks whose features are used."""
        match self.config.fusion:
            case "none":
                return []
            case "penultimate":
                return [self.num_blocks - 1]
            case _:
                return list(range(1, self.num_blocks + 1))

    def _slots(self) -> list[tuple[int | None, int | None]]:
        """Which fused feature feeds the keys and the values of each decoder layer."""
        config, layers = self.config, range(self.num_layers)
        pairs: list[tuple[int, int]]
        match config.fusion:
            case "none":
                return [(None, None)] * self.num_layers
            case "penultimate":
                pairs = [(0, 0)] * self.num_layers
            case "mean":
                pairs = [(layer * config.num_groups // self.num_layers,) * 2 for layer in layers]
            case "adaptive" if self.num_queries == 1:
                pairs = [(layer, layer) for layer in layers]
            case _:
                pairs = [(2 * layer, 2 * layer + 1) for layer in layers]
        keys, values = config.prompts_in != "values", config.prompts_in != "keys"
        return [(key if keys else None, value if values else None) for key, value in pairs]

    @property
    def num_queries(self) -> int:
        """Queries a decoder layer (S): two only when both sides take entries and each has its own."""
        return 2 if self.config.separate_queries and self.config.prompts_in == "both" else 1

    def _query_network(self) -> InputEmbeddingNetwork | LearnableQueries:
        config = self.config
        if config.query == "learnable":
            return LearnableQueries(self.num_layers, self.num_queries, config.fuser_dim)
        return InputEmbeddingNetwork(
            self.num_layers, self.num_queries, config.fuser_dim, position=config.separate_queries
        )

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """`s_BEJP`, `SiLU(W1 V + b1)` of each fused feature V, and `weights_BYSK`, the fusion weights α.

        The fusion `Σ_k α_k F_k` (Eq. 6) is done after W1, which is linear: `W1 Σ α_k F_k + b1 = Σ α_k (W1 F_k + b1)`.
        """
        projector = self.memory.projector
        if projector is None:
            return {}
        if self.config.fusion == "penultimate":
            (penultimate_BJC,) = backbone.vision.features(images_BCHW, self.blocks, normalize=True)
            return {"s_BEJP": F.silu(projector.down(penultimate_BJC[:, 1:]))[:, None]}
        features_BXJC = backbone.vision.stacked_features(images_BCHW, self.blocks, normalize=True)
        hidden_BXJP = projector.down(features_BXJC)[:, :, 1:]
        if self.config.fusion == "mean":
            groups, size = self.members_GKX.shape[:2]
            mean_BYSK = hidden_BXJP.new_full((1, groups, 1, size), 1 / size).expand(len(images_BCHW), -1, -1, -1)
            return {"s_BEJP": F.silu(fuse(mean_BYSK, self.members_GKX, hidden_BXJP))}
        cls_BGKC = features_BXJC[:, :, 0].index_select(1, self.index_GK.flatten()).unflatten(1, self.index_GK.shape)
        weights_BYSK = self.fuser(self.queries(), cls_BGKC)
        return {"s_BEJP": F.silu(fuse(weights_BYSK, self.members_GKX, hidden_BXJP)), "weights_BYSK": weights_BYSK}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Text alone: visual entries live in the FFNs."""
        return plain_sequence(backbone.llm.model.embed_tokens, batch)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """`memories`: one memory for each decoder layer."""
        return {"memories": layer_memories(self.memory, visual, self.config.visual_scale, self.slots, num_tokens)}

    def image_cost(self, images: int) -> ImageCost:
        """CLIP blocks, the CLIP adapters, W1 on every block's patches, queries, fuser, the weighted sums."""
        projector = self.memory.projector
        if projector is None:
            return ImageCost(0, None, [])
        blocks, patches = len(self.vision_adapters), self.num_patches
        tokens, one = patches + 1, self.config.fusion == "penultimate"
        # CLS goes through W1 with the patches where the features of all blocks are one tensor.
        rows = images * (patches if one else len(self.blocks) * tokens)
        products = [
            *parallel_adapter_products("vision_adapters", self.vision_adapters, images * tokens),
            linear("projector", projector.down, rows, input_grad=True),
        ]
        if one:
            return ImageCost(blocks, Entry(0, "ffn"), products)
        adaptive = self.config.fusion == "adaptive"
        groups, features, _ = self.members_GKX.shape
        queries = self.num_layers * self.num_queries // groups if adaptive else 1
        entries = patches * self.config.projector_dim
        products += fuse_products("fusion", self.members_GKX, images, queries, entries, weights_grad=adaptive)
        if adaptive:
            products += self.queries.products("queries")
            products += self.fuser.products("fuser", images, queries, features)
        return ImageCost(blocks, Entry(0, "ffn"), products)

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """The text's own."""
        return text_tokens

    def token_cost(self, samples: int, tokens: int, *, decoding: bool) -> TokenCost:
        """The memories, built where that is cheaper, read by every layer."""
        return memory_cost(self.memory, self.slots, samples, tokens, self.num_patches)

    def reference_only(self) -> dict[str, int]:
        """Parameters under the paper's convention that no forward of this configuration uses."""
        config = self.config
        skipped = self.num_blocks - len(self.vision_adapters)
        unused = {
            "modality_embedding": 2 * self.hidden_size,
            "vision_adapters.unused": skipped * 2 * config.adapter_dim * self.vision_width,
        }
        if config.fusion == "adaptive" and config.separate_queries and config.prompts_in != "both":
            per_query = self.num_layers * config.fuser_dim if config.query == "learnable" else config.fuser_dim
            unused["queries.other_side"] = per_query
        return {name: count for name, count in unused.items() if count}
