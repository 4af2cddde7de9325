"""LaVIN: mixture-of-modality adapters.

Paper: Luo, Zhou, Ren, Chen, Sun, Ji, "Cheap and Quick: Efficient Vision-Language Instruction Tuning for Large
Language Models", 2023. https://arxiv.org/abs/2305.15023

Deviations from the published code, and why:

- In its CLIP adapters, the first dimension is the position, but the routing takes it for the batch. So sample 0 routes
  every sample, and the output of a sample depends on the others in its batch. Here every token is routed by its own
  feature, as the published code does for a batch of one.
- Its decoder drops the modality token from the cache, shifts later positions by one, and feeds the longer prompts of a
  batch token by token. Here decoding continues as in training: it uses the same positions and the same mask, and it
  keeps the routing weights of the prompt.
- It cuts a sequence to 512 columns after the insertion. Here texts are cut before the insertion, in the same way for
  all methods. `max_length` cuts after the insertion as the published code does, but only sequences that carry labels,
  because a prompt without its end cannot be answered.
- Unused columns are between the modality token and BOS instead of after the text (`methods.sequence`). They are
  masked, so this changes no output.

As in the published code, the router of each adapter keeps torch's default initialisation and `A` starts Xavier-uniform;
everything else in an adapter starts at zero. The biases of its up-projections are one tensor here, and get no weight
decay, as they have none in the published code.

The published accuracies (89.41 at 7B, 90.50 at 13B) were made with training on `QCM-ALE` and sampled texts of up to 64
tokens, in which an answer that could not be read was replaced by a random choice. Its captions (Table 3 of the DEHVF
paper) start from an adapter that was trained before. See docs/protocols.md.

Shape suffixes as in `methods.base`, and S inserted tokens, E experts (in `modality_ED` the two modalities: without
and with an image), Y decoder layers, N visual tokens.
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
    """Sizes and scales of LaVIN. The defaults are those of the published 7B run."""

    projector_dim: int = Field(128, ge=1, description="width between the projector's two layers")
    feature_stride: int = Field(4, ge=1, description="n: the CLS token of every n-th CLIP block becomes a visual token")
    adapter_dim: int = Field(8, ge=1, description="bottleneck of the adapters")
    adapter_groups: int = Field(2, ge=1, description="groups of the adapters' up-projections")
    adapter_scale: float = Field(1.0, description="s, the factor on the adapters' output")
    adapter_dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside the adapters")
    temperature: float = Field(10.0, gt=0, description="τ of the routing softmax: 10 at 7B, 5 at 13B")
    image_prefix: str = Field("Image: ", description="text between BOS and the visual tokens")
    text_prefix: str = Field("Image: N/A", description="text behind BOS in a sample without an image")
    max_length: int | None = Field(
        None, ge=8, description="columns that a sample keeps in training, inserted ones included; None keeps all"
    )


class RoutedByModality(nn.Module):
    """The adapter before the attention of one layer, routed by the sample's modality token.

    Args:
        adapter: this layer's adapter.
        layer_idx: index of this layer.
    """

    def __init__(self, adapter: RoutedAdapter, layer_idx: int) -> None:
        super().__init__()
        self.adapter = adapter
        self.layer_idx = layer_idx

    def forward(self, x_BTD: Tensor, routing: list[Tensor | None], cache: Any = None) -> Tensor:
        """Adapt the input of the attention.

        Args:
            x_BTD: the input. In training, and while the prompt runs, column 0 is the modality token.
            routing: one item per layer. In decoding, each item is the routing weights, `B×E`; otherwise it is None.
                With a cache, the weights computed here replace None, so that later tokens can use them.
            cache: the key-value cache, or None.

        Returns:
            The adapted input, `B×T×D`.
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
        ValueError: `feature_stride` exceeds the number of CLIP blocks, or `adapter_groups` does not divide the widths.
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
        for width in (backbone.vision.width, backbone.hidden_size):
            RoutedAdapter.check_groups(width, config.adapter_dim, config.adapter_groups)
        self.config = config
        self.num_blocks = backbone.vision.num_layers
        self.vision_width = backbone.vision.width
        self.num_patches = backbone.vision.num_patches
        self.num_layers = backbone.num_layers
        self.feature_blocks = list(range(config.feature_stride, self.num_blocks + 1, config.feature_stride))
        if not self.feature_blocks:
            raise ValueError(
                f"feature_stride {config.feature_stride} exceeds the {self.num_blocks} blocks of the vision tower; "
                f"set feature_stride to at most {self.num_blocks}"
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
        """Return `tokens_BND`, the projected CLS tokens after every `feature_stride`-th block, without `ln_post`.

        Args:
            backbone: the backbone that this method is attached to.
            images_BCHW: normalised images.
        """
        features = backbone.vision.features(images_BCHW, self.feature_blocks, normalize=False)
        return {"tokens_BND": self.projector(torch.stack([feature_BJC[:, 0] for feature_BJC in features], dim=1))}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Return the sequence: modality token, BOS, prefix, visual tokens, text.

        A sample without an image has another prefix and no visual tokens.
        """
        embed_tokens = backbone.llm.model.embed_tokens
        has_image_B = visual["has_image_B"]
        inserted_BSD, mask_BS = self._inserted(embed_tokens, visual["tokens_BND"], has_image_B)
        limit = None if batch.labels_BL is None or self.config.max_length is None else self.config.max_length - 1
        sequence = insert_after_bos(embed_tokens, batch, inserted_BSD, mask_BS, limit)
        return prepend_hidden_token(sequence, self.modality_ED[has_image_B.long()][:, None])

    def _inserted(self, embed_tokens: nn.Module, tokens_BND: Tensor, has_image_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prefix and visual tokens, `B×S×D`, and a mask of the columns that a sample has, `B×S`."""
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
        """Return `routing`, the routing weights of every layer; they are None until the prompt has run."""
        routing_BYE = visual.get("routing_BYE")
        if routing_BYE is None:
            return {"routing": [None] * self.num_layers}
        return {"routing": list(routing_BYE.unbind(dim=1))}

    def decoding_features(self, layer_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Return `routing_BYE`, the routing weights of the prompt, which all decoded tokens use."""
        return {"routing_BYE": torch.stack(layer_inputs["routing"], dim=1)}

    def image_cost(self, images: int) -> ImageCost:
        """Return the products of the projector on the CLS tokens, and of the CLIP adapters."""
        rows = images * (self.num_patches + 1)
        products = self.projector.products("projector", images * len(self.feature_blocks), input_grad=True)
        for index, adapter in enumerate(self.vision_adapters):
            assert isinstance(adapter, RoutedAdapter)
            products += adapter.products("vision_adapters", rows, rows, input_grad=index > 0)
        return ImageCost(len(self.vision_adapters), Entry(0, "input"), products)

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """Return the columns of the modality token, the prefix and visual tokens, and the text.

        A training sequence has at most `max_length` columns.
        """
        columns = 1 + self.prefix_ids_2S.shape[1] + text_tokens
        return columns if self.config.max_length is None or not training else min(columns, self.config.max_length)

    def token_cost(self, samples: int, tokens: int, read: int, *, decoding: bool) -> TokenCost:
        """Return the products of the adapters of every layer. Samples are routed once, while the prompt runs."""
        products = []
        for adapter in self.adapters:
            assert isinstance(adapter, RoutedAdapter)
            products += adapter.products("adapters", samples * tokens, samples, input_grad=True, routed=not decoding)
        return TokenCost(Entry(0, "input"), [], products)

    def reference_only(self) -> dict[str, int]:
        """Return the size of the adapters of CLIP blocks that never run.

        There are none where `feature_stride` divides the number of blocks.
        """
        skipped = self.num_blocks - len(self.vision_adapters)
        per_adapter = sum(p.numel() for p in self.vision_adapters[0].parameters())
        return {"vision_adapters.unused": skipped * per_adapter} if skipped else {}
