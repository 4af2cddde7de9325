"""LaVIN: mixture-of-modality adapters.

Paper: Luo, Zhou, Ren, Chen, Sun, Ji, "Cheap and Quick: Efficient Vision-Language Instruction Tuning for Large
Language Models", 2023. https://arxiv.org/abs/2305.15023

Deviations from the published code, and why:
- Its CLIP adapters route every sample of a batch by sample 0, because its tensors are position-first there: outputs
  depend on who shares the batch. Here every token is routed by its own feature, which is what it does for a batch
  of one.
- Its decoder drops the modality token from the cache, shifts later positions by one and feeds longer prompts of a
  batch token by token. Here decoding goes on as in training: same positions, same mask, and the routing weights of
  the prompt are kept.
- It cuts a sequence to 512 after the insertion. Here texts are cut before, for all methods alike; `max_length` cuts
  as it does, but only sequences that carry labels: a prompt without its end cannot be answered.
- Unused columns stand between the modality token and BOS instead of behind the text (`methods.sequence`). They are
  masked, so nothing depends on it.

The router of each adapter keeps torch's default initialisation, as published; everything else but `A` starts at zero.

Shape suffixes as in `methods.base`; S inserted tokens, E experts, Y decoder layers, N features.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from methods.adapters import NormWithRoutedAdapter, Projector, RoutedAdapter
from methods.base import Backbone, Batch, InputSequence, MethodConfig, Source, VisualFeatures
from methods.cost import Entry, ImageCost, TokenCost
from methods.decoder import AdaptedDecoderLayer
from methods.sequence import insert_after_bos, prepend_hidden_token


class LaVINConfig(MethodConfig):
    """Sizes and scales of LaVIN; the defaults are the published 7B run's."""

    projector_dim: int = Field(128, ge=1, description="width between the projector's two layers")
    feature_stride: int = Field(4, ge=1, description="the CLS token after every so many CLIP blocks is a visual token")
    adapter_dim: int = Field(8, ge=1, description="bottleneck of the adapters")
    adapter_groups: int = Field(2, ge=1, description="groups of the adapters' up-projections")
    adapter_scale: float = Field(1.0, description="s, factor on the adapters' output")
    adapter_dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside the adapters")
    temperature: float = Field(10.0, gt=0, description="τ of the routing softmax: 10 at 7B, 5 at 13B")
    image_prefix: str = Field("Image: ", description="text between BOS and the visual tokens")
    text_prefix: str = Field("Image: N/A", description="text behind BOS where the sample has no image")
    max_length: int | None = Field(
        None, ge=8, description="columns a sample keeps in training, the inserted ones counted; None keeps all"
    )


class RoutedByModality(nn.Module):
    """Before the attention of one layer: the adapter, routed by the sample's modality token.

    Args:
        adapter: this layer's adapter.
        layer_idx: index of this layer.
    """

    def __init__(self, adapter: RoutedAdapter, layer_idx: int) -> None:
        super().__init__()
        self.adapter = adapter
        self.layer_idx = layer_idx

    def forward(self, x_BTD: Tensor, routing: list[Tensor | None], cache: Any = None) -> Tensor:
        """`B×T×D` to `B×T×D`.

        `routing` holds one `B×E` a layer in decoding. While the prompt runs it holds None, column 0 is the modality
        token, and the weights are left in it for the tokens to come.
        """
        weights_BE = routing[self.layer_idx]
        if weights_BE is None:
            weights_BE = self.adapter.route(x_BTD[:, 0])
            if cache is not None:
                routing[self.layer_idx] = weights_BE
        return self.adapter(x_BTD, weights_BE[:, None])


class LaVIN(nn.Module):
    """LaVIN attached to a backbone.

    Args:
        backbone: the frozen backbone; its decoder layers and the norms of its CLIP blocks are wrapped in place.
        config: sizes and scales.

    Raises:
        ValueError: no CLIP block is a multiple of `feature_stride`, or the groups do not divide the widths.
    """

    name: ClassVar[str] = "lavin"
    title: ClassVar[str] = "LaVIN"
    source: ClassVar[Source] = Source(
        paper="Cheap and Quick: Efficient Vision-Language Instruction Tuning for LLMs (Luo et al. 2023)",
        url="https://arxiv.org/abs/2305.15023",
        summary="a few visual tokens in the input, adapters in both towers routed by a modality token",
    )
    Config: ClassVar[type[MethodConfig]] = LaVINConfig
    prefix_ids_2S: Tensor

    def __init__(self, backbone: Backbone, config: LaVINConfig) -> None:
        super().__init__()
        self.config = config
        self.num_blocks = backbone.vision.num_layers
        self.vision_width = backbone.vision.width
        self.num_patches = backbone.vision.num_patches
        self.num_layers = backbone.num_layers
        self.feature_blocks = list(range(config.feature_stride, self.num_blocks + 1, config.feature_stride))
        if not self.feature_blocks:
            raise ValueError(
                f"feature_stride {config.feature_stride} is more than the {self.num_blocks} blocks of the vision "
                f"tower; set feature_stride to at most {self.num_blocks}"
            )
        self.prefixes = {
            has_image: backbone.tokenizer.encode(text, add_special_tokens=False)
            for has_image, text in ((True, config.image_prefix), (False, config.text_prefix))
        }
        length = max(len(self.prefixes[False]), len(self.prefixes[True]) + len(self.feature_blocks))
        ids_2S = [ids + [0] * (length - len(ids)) for ids in (self.prefixes[False], self.prefixes[True])]
        self.register_buffer("prefix_ids_2S", torch.tensor(ids_2S), persistent=False)
        self.projector = Projector(self.vision_width, config.projector_dim, backbone.hidden_size)
        self.modality_ED = nn.Parameter(torch.randn(2, backbone.hidden_size))
        self.vision_adapters = nn.ModuleList()
        for block in backbone.vision.blocks[: self.feature_blocks[-1]]:
            adapter = self._adapter(self.vision_width)
            self.vision_adapters.append(adapter)
            block.ln_1 = NormWithRoutedAdapter(block.ln_1, adapter)
        self.adapters = nn.ModuleList()
        layers = backbone.llm.model.layers
        for index, layer in enumerate(layers):
            adapter = self._adapter(backbone.hidden_size)
            self.adapters.append(adapter)
            layers[index] = AdaptedDecoderLayer(layer, before_attention=RoutedByModality(adapter, index))

    def _adapter(self, width: int) -> RoutedAdapter:
        config = self.config
        return RoutedAdapter(
            width,
            config.adapter_dim,
            config.adapter_groups,
            config.adapter_scale,
            config.temperature,
            config.adapter_dropout,
        )

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """`tokens_BND`: the projected CLS token after every `feature_stride`-th block, without `ln_post`."""
        features = backbone.vision.features(images_BCHW, self.feature_blocks, normalize=False)
        return {"tokens_BND": self.projector(torch.stack([feature_BJC[:, 0] for feature_BJC in features], dim=1))}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """`[modality] BOS prefix, visual tokens, text`; a text-only sample has its own prefix and no visual token."""
        embed_tokens = backbone.llm.model.embed_tokens
        has_image_B = visual["has_image_B"]
        inserted_BSD, mask_BS = self._inserted(embed_tokens, visual["tokens_BND"], has_image_B)
        limit = None if batch.labels_BL is None or self.config.max_length is None else self.config.max_length - 1
        sequence = insert_after_bos(embed_tokens, batch, inserted_BSD, mask_BS, limit)
        return prepend_hidden_token(sequence, self.modality_ED[has_image_B.long()][:, None])

    def _inserted(self, embed_tokens: nn.Module, tokens_BND: Tensor, has_image_B: Tensor) -> tuple[Tensor, Tensor]:
        """Prefix and visual tokens, `B×S×D`, and which of the columns a sample has, `B×S`."""
        start, end = len(self.prefixes[True]), len(self.prefixes[True]) + tokens_BND.shape[1]
        ids_BS = self.prefix_ids_2S[has_image_B.long()]
        length = ids_BS.shape[1]
        columns_S = torch.arange(length, device=tokens_BND.device)
        is_visual_BS = has_image_B[:, None] & (columns_S >= start) & (columns_S < end)
        tokens_BSD = F.pad(tokens_BND, (0, 0, start, length - end))
        prefix_BSD = embed_tokens(ids_BS)
        inserted_BSD = torch.where(is_visual_BS[..., None], tokens_BSD.to(prefix_BSD.dtype), prefix_BSD)
        return inserted_BSD, columns_S < torch.where(has_image_B, end, len(self.prefixes[False]))[:, None]

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """`routing`: the routing weights of every layer, None where the modality token is yet to be seen."""
        routing_BYE = visual.get("routing_BYE")
        if routing_BYE is None:
            return {"routing": [None] * self.num_layers}
        return {"routing": list(routing_BYE.unbind(dim=1))}

    def decoding_features(self, layer_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """`routing_BYE`: the routing weights that the prompt left behind."""
        return {"routing_BYE": torch.stack(layer_inputs["routing"], dim=1)}

    def image_cost(self, images: int) -> ImageCost:
        """CLIP up to the last block read, its adapters, the projector on the CLS tokens."""
        rows = images * (self.num_patches + 1)
        products = self.projector.products("projector", images * len(self.feature_blocks), input_grad=True)
        for index, adapter in enumerate(self.vision_adapters):
            assert isinstance(adapter, RoutedAdapter)
            products += adapter.products("vision_adapters", rows, rows, input_grad=index > 0)
        return ImageCost(len(self.vision_adapters), Entry(0, "input"), products)

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """The modality token, the longer of the two prefixes, the visual tokens, the text."""
        columns = 1 + self.prefix_ids_2S.shape[1] + text_tokens
        return columns if self.config.max_length is None or not training else min(columns, self.config.max_length)

    def token_cost(self, samples: int, tokens: int, *, decoding: bool) -> TokenCost:
        """The adapters of every layer, routed once a sample while the prompt runs."""
        products = []
        for adapter in self.adapters:
            assert isinstance(adapter, RoutedAdapter)
            products += adapter.products("adapters", samples * tokens, samples, input_grad=True, routed=not decoding)
        return TokenCost(Entry(0, "input"), [], products)

    def reference_only(self) -> dict[str, int]:
        """The adapters of CLIP blocks that never run; there are none where `feature_stride` divides the blocks."""
        skipped = self.num_blocks - len(self.vision_adapters)
        per_adapter = sum(p.numel() for p in self.vision_adapters[0].parameters())
        return {"vision_adapters.unused": skipped * per_adapter} if skipped else {}
