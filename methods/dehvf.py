"""DEHVF: dynamic embedding of hierarchical visual features.

Paper: Wei, Yang, Zhou, Yang, Li, Zhang, Qiu, "Dynamic Embedding of Hierarchical Visual Features for Efficient
Vision-Language Fine-Tuning", 2025. https://arxiv.org/abs/2508.17638 (the paper that this benchmark starts from).
Equations (1)-(13). The authors published no code.

Where the paper gives no detail or contradicts itself, this file chooses as follows:

- The paper names no activation, neither for the input embedding network nor for the FFN in the fuser's blocks. Both
  are GELU here.
- The paper does not print all sizes of the fuser and of the input embedding network. The sizes here are those that
  reproduce every printed count of its Table 4 at once.
- The paper does not say how new parameters start. Layer and position embeddings are drawn from N(0, 1), as are the
  free queries of the ablation "learnable tokens". Linear layers, attention and norms of the fuser and of the input
  embedding network keep torch's default initialisation. Everything that MemVP has too starts as in MemVP.
- The paper does not say whether features pass through the vision tower's last layer norm. Here all of them do, the CLS
  tokens that the fuser reads and the patches alike (`ln_post`), as MemVP's features do.
- The paper mentions no dropout. The fuser and the input embedding network have none; the rest has MemVP's.
- LLaMA's FFN has a gate (SwiGLU), and the paper's FFN has none. Here the visual rows are a memory beside the FFN, as in
  MemVP, and the gate does not multiply them. The factor s on the memory's output is that of MemVP's code. Table 5 has
  one scaling factor, 0.01, which is λ.
- The printed counts imply that all layers share one `P_k`, one `P_v` and one projector.
- The paper divides the N_l decoder layers into M equal groups. Here M need not divide N_l, because SmolLM2-135M, a
  language model of this benchmark, has 30 layers. Layer l, counted from 0, reads group `⌊l · M / N_l⌋`. Where M divides
  N_l, these are the equal groups. Fewer layers than groups are refused, because no layer would read some of the groups.
- For the memory length at 13B, its Table 5 says 420, but its parameter count implies 400. This file follows the count.
- The printed counts contain MemVP's modality embedding, which no forward pass uses. It does not exist here;
  `reference_only` counts it, so that totals can be compared with the paper's.

The published accuracies (93.54 at 7B, 94.19 at 13B) were made with prompts and a decoder that are not published. They
are taken to be MemVP's, whose evaluation has a caption of the image in the prompt. See docs/protocols.md.

The operations are reordered, with exactly the same result, to save work:

- The first layer of the projector is linear. So each feature is projected once, and features are fused in P dimensions
  instead of C.
- The projector's second layer is applied to fused features only where that is cheaper (`methods.memory_forms`).
- The fuser runs once per image for all layers.

`methods.plain` computes the formulas in the printed order.

Shape suffixes: B batch, J patches (or tokens of the vision tower), C vision width, P projector width, X blocks of the
vision tower, G visual groups (the paper's M), K features of a group, Y decoder layers (the paper's N_l), S sides (keys,
values), Q queries of a group, E distinct fused features; `images_BCHW` as in `methods.base`.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from methods.adapters import Projector, attach_parallel_adapters, parallel_adapter_products
from methods.base import (
    Backbone,
    Batch,
    Diagnostic,
    InputSequence,
    MethodConfig,
    Source,
    VisualFeatures,
    plain_sequence,
)
from methods.cost import Entry, ImageCost, TokenCost, linear
from methods.fuser import (
    HierarchicalVisualFuser,
    InputEmbeddingNetwork,
    LearnableQueries,
    fuse,
    fuse_products,
    layer_groups,
    layers_per_group,
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
    """Sizes, scales and ablations of DEHVF. The defaults are those at 7B.

    The paper prints the length of the memory and λ. The sizes that it does not print follow from its counts. The other
    factors, the dropouts and the start of the prompts are MemVP's.
    """

    num_groups: int = Field(4, ge=1, description="visual groups M")
    fuser_dim: int = Field(64, ge=1, description="width r of the fuser and of the layer embeddings")
    fuser_blocks: int = Field(4, ge=0, le=1000, description="cross-attention blocks of the fuser")
    fuser_heads: int = Field(4, ge=1, description="attention heads of the fuser")
    fusion: Literal["adaptive", "mean", "penultimate", "none"] = Field(
        "adaptive", description="how the features of a group become one; none: position prompts alone, no image"
    )
    query: Literal["network", "learnable"] = Field("network", description="where the fuser's queries come from")
    separate_queries: bool = Field(True, description="keys and values have a query each, instead of sharing one")
    prompts_in: Literal["both", "keys", "values"] = Field("both", description="sides that take visual entries")


class DEHVF(nn.Module):
    """DEHVF attached to a backbone.

    Args:
        backbone: the frozen backbone; its decoder layers and CLIP blocks are wrapped in place.
        config: sizes, scales and ablations.

    Raises:
        ValueError: the CLIP blocks do not divide into the groups, there are fewer decoder layers than groups, or the
            memory of a `fusion` that reads the image has fewer rows than there are patches.
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
    compiled_regions: ClassVar[tuple[str, ...]] = ("visual_entries", "layer_inputs")
    index_GK: Tensor
    members_GKX: Tensor

    def __init__(self, backbone: Backbone, config: DEHVFConfig) -> None:
        super().__init__()
        vision = backbone.vision
        if config.fusion != "none":
            check_memory_length(config.memory_length, vision.num_patches)
        self.num_blocks = vision.num_layers
        self.groups = visual_groups(vision.num_layers, config.num_groups)
        self.register_buffer("index_GK", torch.tensor(self.groups) - 1, persistent=False)
        self.register_buffer("members_GKX", F.one_hot(self.index_GK, self.num_blocks).float(), persistent=False)
        self.config = config
        self.num_layers = backbone.num_layers
        self.group_of_layer = layer_groups(backbone.num_layers, config.num_groups)
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
        """Return the CLIP blocks whose features are used, counted from 1."""
        match self.config.fusion:
            case "none":
                return []
            case "penultimate":
                return [self.num_blocks - 1]
            case _:
                return list(range(1, self.num_blocks + 1))

    def _slots(self) -> list[tuple[int | None, int | None]]:
        """Return, for each decoder layer, the index of the fused feature of its keys and that of its values.

        None marks a side without visual entries. Layers with the same index share a feature.
        """
        config, layers = self.config, range(self.num_layers)
        pairs: list[tuple[int, int]]
        match config.fusion:
            case "none":
                return [(None, None)] * self.num_layers
            case "penultimate":
                pairs = [(0, 0)] * self.num_layers
            case "mean":
                pairs = [(group, group) for group in self.group_of_layer]
            case "adaptive" if self.num_queries == 1:
                pairs = [(layer, layer) for layer in layers]
            case _:
                pairs = [(2 * layer, 2 * layer + 1) for layer in layers]
        keys, values = config.prompts_in != "values", config.prompts_in != "keys"
        return [(key if keys else None, value if values else None) for key, value in pairs]

    @property
    def num_queries(self) -> int:
        """Queries per decoder layer (S): 2 if both sides take visual entries and each has its own query, else 1."""
        return 2 if self.config.separate_queries and self.config.prompts_in == "both" else 1

    def _query_network(self) -> InputEmbeddingNetwork | LearnableQueries:
        config = self.config
        if config.query == "learnable":
            return LearnableQueries(self.num_layers, self.num_queries, config.fuser_dim)
        return InputEmbeddingNetwork(
            self.num_layers, self.num_queries, config.fuser_dim, position=config.separate_queries
        )

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Encode the images.

        Args:
            backbone: the backbone that this method is attached to.
            images_BCHW: normalised images.

        Returns:
            What `visual_entries` returns, or nothing if `fusion` is "none".
        """
        if not self.blocks:
            return {}
        return self.visual_entries(backbone.vision.stacked_features(images_BCHW, self.blocks, normalize=True))

    def visual_entries(self, features_BXJC: Tensor) -> dict[str, Tensor]:
        """Fuse features.

        Features are fused (Eq. 6) after W1, which is linear, and since Σ α_k = 1:
        `W1 Σ α_k F_k + b1 = Σ α_k (W1 F_k + b1)`.

        Args:
            features_BXJC: what the vision tower returns for the blocks whose features are used, with the CLS tokens.

        Returns:
            `s_BEJP`, which is `SiLU(W1 V + b1)` of each fused feature V; and `weights_BYSK`, the fusion weights α, if
            `fusion` is "adaptive".
        """
        projector = self.memory.projector
        assert projector is not None, "features are only computed for a memory with a projector"
        if self.config.fusion == "penultimate":
            return {"s_BEJP": F.silu(projector.down(features_BXJC[:, :, 1:]))}
        hidden_BXJP = projector.down(features_BXJC)[:, :, 1:]
        if self.config.fusion == "mean":
            groups, size = self.members_GKX.shape[:2]
            mean_BYSK = hidden_BXJP.new_full((1, groups, 1, size), 1 / size).expand(len(features_BXJC), -1, -1, -1)
            return {"s_BEJP": F.silu(fuse(mean_BYSK, self.members_GKX, hidden_BXJP))}
        cls_BGKC = features_BXJC[:, :, 0].index_select(1, self.index_GK.flatten()).unflatten(1, self.index_GK.shape)
        weights_BYSK = self.fuser(self.queries(), cls_BGKC)
        return {"s_BEJP": F.silu(fuse(weights_BYSK, self.members_GKX, hidden_BXJP)), "weights_BYSK": weights_BYSK}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Return the text alone. The visual entries are in the FFNs."""
        return plain_sequence(backbone.llm.model.embed_tokens, batch)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """Return `memories`, one for each decoder layer."""
        return {"memories": layer_memories(self.memory, visual, self.config.visual_scale, self.slots, num_tokens)}

    def diagnostics(self, visual: VisualFeatures) -> list[Diagnostic]:
        """Return the weights of the vision tower's blocks, as in the paper's Figures 3 and 4.

        A block that a group holds twice has the sum of its two weights. Keys and values are averaged.

        Args:
            visual: what `encode_images` returns for samples with an image.

        Returns:
            The weights by visual group and by decoder layer; nothing if `fusion` is not "adaptive".
        """
        if "weights_BYSK" not in visual:
            return []
        read_Y = self.group_of_layer
        mean_BYK = visual["weights_BYSK"].float().mean(dim=2)
        shares_BYX = (mean_BYK[:, :, None] @ self.members_GKX[read_Y]).squeeze(2)
        readers = [[layer for layer, group in enumerate(read_Y) if group == m] for m in range(len(self.groups))]
        blocks = tuple(str(block) for block in range(1, self.num_blocks + 1))
        return [
            Diagnostic(
                "figure3",
                "Mean weight of each visual feature, by group",
                "The fuser's weights of the blocks of each visual group, averaged over the decoder layers that read "
                "the group. The paper says of its Figure 3 that the share of the penultimate block grows in shallower "
                "layers.",
                "decoder layers of the group",
                "block of the vision tower",
                tuple(f"{layers[0]} to {layers[-1]}" for layers in readers),
                blocks,
                torch.stack([shares_BYX[:, layers].mean(dim=1) for layers in readers], dim=1),
            ),
            Diagnostic(
                "figure4",
                "Share of each visual block along the language model",
                "The fuser's weights of the blocks in each decoder layer. The paper says of its Figure 4 that blocks "
                "of higher levels have a larger share, that no single one dominates, and that there are several peaks.",
                "decoder layer",
                "block of the vision tower",
                tuple(str(layer) for layer in range(self.num_layers)),
                blocks,
                shares_BYX,
            ),
        ]

    def image_cost(self, images: int) -> ImageCost:
        """Return the products of CLIP adapters, W1 on the features, weighted sums, query network and fuser."""
        projector = self.memory.projector
        if projector is None:
            return ImageCost(0, None, [])
        blocks, patches = len(self.vision_adapters), self.num_patches
        tokens, penultimate_only = patches + 1, self.config.fusion == "penultimate"
        # Where the features of all blocks are one tensor, CLS goes through W1 together with the patches.
        rows = images * (patches if penultimate_only else len(self.blocks) * tokens)
        products = [
            *parallel_adapter_products("vision_adapters", self.vision_adapters, images * tokens),
            linear("projector", projector.down, rows, input_grad=True),
        ]
        if penultimate_only:
            return ImageCost(blocks, Entry(0, "ffn"), products)
        adaptive = self.config.fusion == "adaptive"
        groups, features, _ = self.members_GKX.shape
        queries = layers_per_group(self.num_layers, groups) * self.num_queries if adaptive else 1
        fused = self.num_layers * self.num_queries if adaptive else groups
        entries = patches * self.config.projector_dim
        products += fuse_products("fusion", self.members_GKX, images, queries, fused, entries, weights_grad=adaptive)
        if adaptive:
            products += self.queries.products("queries")
            products += self.fuser.products("fuser", images, queries, features)
        return ImageCost(blocks, Entry(0, "ffn"), products)

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """Return `text_tokens`: nothing is inserted into the text."""
        return text_tokens

    def token_cost(self, samples: int, tokens: int, read: int, *, decoding: bool) -> TokenCost:
        """Return the products of building and reading the memories."""
        return memory_cost(self.memory, self.slots, samples, tokens, read, self.num_patches)

    def reference_only(self) -> dict[str, int]:
        """Return the parameters that the paper counts although no forward pass of this configuration uses them."""
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
