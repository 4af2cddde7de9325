"""MemVP: memory-space visual prompting.

Paper: Jie, Tang, Ding, Deng, Han, Wang, "Memory-Space Visual Prompting for Efficient Vision-Language
Fine-Tuning", 2024. https://arxiv.org/abs/2405.05615

Deviations from the published runs, and why:

- The published code registers and counts a modality embedding of 2 × hidden_size that no forward pass uses. It does
  not exist here. `reference_only` counts it, so that totals can be compared with the paper's.
- The CLIP adapter of the last block never runs, because features come from the penultimate block. It is treated in the
  same way.
- K and M are built only where that is cheaper than the other forms (`methods.memory_forms`). The output is the same.

The published accuracies (93.07 at 7B, 93.78 at 13B) were made with training on `QCM-A` without captions, and evaluation
with a caption of the image in the prompt. See docs/protocols.md.

Shape suffixes as in `methods.memory`, and C vision width; `images_BCHW` as in `methods.base`.
"""

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from methods.adapters import Projector, attach_parallel_adapters, parallel_adapter_products
from methods.base import Backbone, Batch, InputSequence, MethodConfig, Source, VisualFeatures, plain_sequence
from methods.cost import Entry, ImageCost, TokenCost, linear
from methods.memory import (
    MemoryConfig,
    PositionPrompts,
    VisualMemory,
    attach_memory,
    check_memory_length,
    layer_memories,
    memory_cost,
)


class MemVPConfig(MemoryConfig):
    """Sizes and scales of MemVP. The defaults are those of the published 7B run."""


class MemVP(nn.Module):
    """MemVP attached to a backbone.

    Args:
        backbone: the frozen backbone; its decoder layers and CLIP blocks are wrapped in place.
        config: sizes and scales.

    Raises:
        ValueError: the memory has fewer rows than there are patches.
    """

    name: ClassVar[str] = "memvp"
    title: ClassVar[str] = "MemVP"
    source: ClassVar[Source] = Source(
        paper="Memory-Space Visual Prompting for Efficient Vision-Language Fine-Tuning (Jie et al. 2024)",
        url="https://arxiv.org/abs/2405.05615",
        summary="projected patch features as extra key-value entries of every FFN, shared by all layers",
    )
    Config: ClassVar[type[MethodConfig]] = MemVPConfig
    compiled_regions: ClassVar[tuple[str, ...]] = ("visual_entries", "layer_inputs")

    def __init__(self, backbone: Backbone, config: MemVPConfig) -> None:
        super().__init__()
        check_memory_length(config.memory_length, backbone.vision.num_patches)
        self.config = config
        self.num_layers = backbone.num_layers
        self.hidden_size = backbone.hidden_size
        self.vision_width = backbone.vision.width
        self.num_patches = backbone.vision.num_patches
        self.slots: list[tuple[int | None, int | None]] = [(0, 0)] * self.num_layers
        self.memory = VisualMemory(
            PositionPrompts(config.memory_length, backbone.hidden_size, config.prompt_std),
            Projector(backbone.vision.width, config.projector_dim, backbone.hidden_size),
            config.memory_scale,
            config.memory_dropout,
        )
        self.vision_adapters = attach_parallel_adapters(
            backbone.vision,
            backbone.vision.num_layers - 1,
            config.adapter_dim,
            config.adapter_scale,
            config.adapter_dropout,
        )
        attach_memory(backbone, self.memory)

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return `s_BEJP` with E = 1: `SiLU(W1 V + b1)`; V is the patches of the penultimate block after `ln_post`.

        Args:
            backbone: the backbone that this method is attached to.
            images_BCHW: normalised images.
        """
        penultimate = backbone.vision.num_layers - 1
        (features_BJC,) = backbone.vision.features(images_BCHW, [penultimate], normalize=True)
        return self.visual_entries(features_BJC)

    def visual_entries(self, features_BJC: Tensor) -> dict[str, Tensor]:
        """Return what `encode_images` returns, from the features with the CLS token."""
        assert self.memory.projector is not None
        return {"s_BEJP": F.silu(self.memory.projector.down(features_BJC[:, 1:]))[:, None]}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Return the text alone. The visual entries are in the FFNs."""
        return plain_sequence(backbone.llm.model.embed_tokens, batch)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """Return `memories`, which holds the one shared memory once per layer."""
        return {"memories": layer_memories(self.memory, visual, self.config.visual_scale, self.slots, num_tokens)}

    def image_cost(self, images: int) -> ImageCost:
        """Return the products of the CLIP adapters, up to the penultimate block, and of W1 on the patches."""
        assert self.memory.projector is not None
        down = linear("projector", self.memory.projector.down, images * self.num_patches, input_grad=True)
        rows = images * (self.num_patches + 1)
        products = [*parallel_adapter_products("vision_adapters", self.vision_adapters, rows), down]
        return ImageCost(len(self.vision_adapters), Entry(0, "ffn"), products)

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """Return `text_tokens`: nothing is inserted into the text."""
        return text_tokens

    def token_cost(self, samples: int, tokens: int, read: int, *, decoding: bool) -> TokenCost:
        """Return the products of building and reading the memory."""
        return memory_cost(self.memory, self.slots, samples, tokens, read, self.num_patches)

    def reference_only(self) -> dict[str, int]:
        """Return the sizes of the unused modality embedding and of the CLIP adapter that never runs."""
        return {
            "modality_embedding": 2 * self.hidden_size,
            "vision_adapters.last": 2 * self.config.adapter_dim * self.vision_width,
        }
