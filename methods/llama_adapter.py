"""LLaMA-Adapter: prompts in the upper layers behind a zero-initialised gate.

Paper: Zhang, Han, Liu, Gao, Zhou, Hu, Yan, Lu, Li, Qiao, "LLaMA-Adapter: Efficient Fine-tuning of Language Models with
Zero-init Attention", 2023. https://arxiv.org/abs/2303.16199

The code of the paper's ScienceQA run was never published, so **the image branch is a reconstruction**. The paper says
that global CLIP features of several scales are concatenated and go through a small MLP. Here these features are the CLS
tokens of the last blocks of four equal groups of CLIP blocks, and the MLP is `4·C → 64 → hidden_size` with SiLU, which
fits the printed parameter count. The language side is the published one. The paper leaves these choices open too:

- The CLS tokens are read after the vision tower's last layer norm (`ln_post`), as the features of MemVP are.
- The MLP starts Xavier-uniform with zero biases, as the projectors of the other methods do. It has no norm and no
  dropout.
- One image feature is added to the prompts of all adapted layers. Nothing inside CLIP is trained.
- Prompts start as N(0, 1) and gates at zero, as in the published language side. Weight decay applies to the gates: in
  the published code they have the shape 1 × heads × 1 × 1, so its rule for 1-D parameters does not exempt them.

Deviations from the published code, and why:

- The image feature is multiplied by the has-image flag. The published multimodal code gives a text-only sample an
  all-zero image, so that its output depends on CLIP's features of that image.
- The key (or value) of a prompt plus an image feature is computed as the sum of the two projections. By linearity the
  result is the same, and an image is projected once instead of once per prompt. The first decoded token computes the
  keys and values, and all later ones use them.
- In models with grouped-query attention, the heads of the prompts are repeated as those of the text are.

The published accuracy (85.19 at 7B) was made with prompts and a decoder that are not published. See docs/protocols.md.

`peft` has an adaption prompt, but it cannot carry the image: its prompt is a parameter of the module, the same for
every sample, and its attention takes no further input. It also has one gate per layer instead of one per head, has no
tanh, and runs the query projection twice.

Shape suffixes as in `methods.base`, and K prompts, Y adapted layers, N heads of the queries, M heads of keys and
values, X width of a head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaAttention, repeat_kv

from methods.adapters import Projector
from methods.attention import SelectiveAttention
from methods.base import Backbone, Batch, InputSequence, MethodConfig, Source, VisualFeatures, plain_sequence
from methods.checks import check_divisible
from methods.cost import Entry, ImageCost, TokenCost, linear, matmul
from methods.decoder import AdaptedDecoderLayer


class LLaMAAdapterConfig(MethodConfig):
    """Sizes of LLaMA-Adapter.

    The defaults of the language side are those of the published 7B run. `num_scales` and `projector_dim` belong to the
    reconstructed image branch, and fit the printed parameter count.
    """

    num_prompts: int = Field(10, ge=1, description="prompts per layer")
    num_adapter_layers: int | None = Field(
        None, ge=1, description="adapted layers, counted from the top; None: all but the first two"
    )
    prompt_std: float = Field(1.0, ge=0, description="standard deviation of the prompts at initialisation")
    num_scales: int = Field(4, ge=1, description="CLIP depths whose CLS tokens are concatenated, evenly spaced")
    projector_dim: int = Field(64, ge=1, description="width between the image branch's two layers")


@dataclass(frozen=True)
class Prompts:
    """The prompts of one layer, from which its attention computes a `PromptMemory`.

    Attributes:
        prompts_KD: P.
        image_BKD: I, the image feature, with one row for all prompts or one row per prompt.
        gate_N: the zero-initialised gate of each head, before the tanh.
    """

    prompts_KD: Tensor
    image_BKD: Tensor
    gate_N: Tensor


@dataclass(frozen=True)
class PromptMemory:
    """The keys and values of the prompts of one layer.

    Attributes:
        keys_BMKX, values_BMKX: the layer's frozen projections of prompts plus image feature, `P + I`, without rotary
            positions.
        gate_N: as in `Prompts`.
    """

    keys_BMKX: Tensor
    values_BMKX: Tensor
    gate_N: Tensor


class ZeroInitAttention(SelectiveAttention):
    """A `LlamaAttention` with gated prompts: `o_proj(attention(text) + tanh(g) · attention(prompts))`.

    Text and prompts have separate softmaxes.
    """

    def prompt_memory(self, prompts: Prompts) -> PromptMemory:
        """Return the keys and values of `P + I`."""
        keys, values = (
            self.heads(layer(prompts.prompts_KD) + _without_bias(layer, prompts.image_BKD))
            for layer in (self.k_proj, self.v_proj)
        )
        return PromptMemory(keys, values, prompts.gate_N)

    def add_to_heads(self, attended_BRNX: Tensor, query_BNRX: Tensor, layer_inputs: Mapping[str, Any]) -> Tensor:
        """Return the attention over the text plus `tanh(g) · softmax(q Kᵀ / √X) V` over the prompts, `B×R×N×X`.

        Args:
            attended_BRNX: the attention over the text.
            query_BNRX: the rotated queries.
            layer_inputs: `prompts` has one item per decoder layer. That of this layer is `Prompts`. With a cache, the
                `PromptMemory` that is computed here replaces it, so that later tokens can use it.
        """
        memory = layer_inputs["prompts"][self.layer_idx]
        if isinstance(memory, Prompts):
            memory = self.prompt_memory(memory)
            if layer_inputs["use_cache"]:
                layer_inputs["prompts"][self.layer_idx] = memory
        prompted_BNRX = F.scaled_dot_product_attention(
            query_BNRX,
            repeat_kv(memory.keys_BMKX, self.num_key_value_groups).to(query_BNRX.dtype),
            repeat_kv(memory.values_BMKX, self.num_key_value_groups).to(query_BNRX.dtype),
            scale=self.scaling,
        )
        return attended_BRNX + prompted_BNRX.transpose(1, 2) * memory.gate_N.tanh().to(query_BNRX.dtype)[:, None]


def _without_bias(layer: nn.Module, x: Tensor) -> Tensor:
    """Return a linear layer's product with `x`. The layer is called, because its weight may be quantised."""
    return layer(x) if layer.bias is None else layer(x) - layer.bias


class LLaMAAdapter(nn.Module):
    """LLaMA-Adapter attached to a backbone.

    Args:
        backbone: the frozen backbone; the attention of its upper decoder layers is replaced in place.
        config: sizes.

    Raises:
        ValueError: there are fewer decoder layers than the config adapts, or too few for its default; the CLIP blocks
            do not divide into `num_scales`; or the attention is not Llama's.
    """

    name: ClassVar[str] = "llama_adapter"
    title: ClassVar[str] = "LLaMA-Adapter"
    source: ClassVar[Source] = Source(
        paper="LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention (Zhang et al. 2023)",
        url="https://arxiv.org/abs/2303.16199",
        summary="prompts with an image feature in the upper layers' attention, behind a zero-initialised gate",
    )
    Config: ClassVar[type[MethodConfig]] = LLaMAAdapterConfig

    def __init__(self, backbone: Backbone, config: LLaMAAdapterConfig) -> None:
        super().__init__()
        vision = backbone.vision
        check_divisible("the vision tower's blocks", vision.num_layers, config.num_scales, "num_scales")
        count = backbone.num_layers - 2 if config.num_adapter_layers is None else config.num_adapter_layers
        if not 1 <= count <= backbone.num_layers:
            raise ValueError(
                f"num_adapter_layers: {count} of {backbone.num_layers} decoder layers cannot be adapted; "
                f"set num_adapter_layers between 1 and {backbone.num_layers}"
            )
        self.config = config
        self.num_layers = backbone.num_layers
        step = vision.num_layers // config.num_scales
        self.feature_blocks = list(range(step, vision.num_layers + 1, step))
        hidden_size, num_heads = backbone.hidden_size, backbone.llm.config.num_attention_heads
        self.prompts_YKD = nn.Parameter(config.prompt_std * torch.randn(count, config.num_prompts, hidden_size))
        self.gates_YN = nn.Parameter(torch.zeros(count, num_heads))
        self.projector = Projector(config.num_scales * vision.width, config.projector_dim, hidden_size)
        # A tuple does not register modules, so the frozen projections do not become this method's parameters.
        self.attentions = attach_zero_init_attention(backbone, count)

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return `image_BKD` with K = 1: the image feature I that is added to every prompt of every layer.

        Args:
            backbone: the backbone that this method is attached to.
            images_BCHW: normalised images.
        """
        features = backbone.vision.features(images_BCHW, self.feature_blocks, normalize=True)
        return {"image_BKD": self.projector(torch.cat([feature_BJC[:, :1] for feature_BJC in features], dim=-1))}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Return the text alone. The prompts are in the attention."""
        return plain_sequence(backbone.llm.model.embed_tokens, batch)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """Return `prompts`, one `Prompts` per layer; None for a layer that is not adapted."""
        image_BKD = visual["image_BKD"]
        image_BKD = image_BKD * visual["has_image_B"].to(image_BKD.dtype)[:, None, None]
        adapted = [
            Prompts(prompts_KD, image_BKD, gate_N)
            for prompts_KD, gate_N in zip(self.prompts_YKD, self.gates_YN, strict=True)
        ]
        return {"prompts": [None] * (self.num_layers - len(adapted)) + adapted}

    def image_cost(self, images: int) -> ImageCost:
        """Return the products of the image branch. Nothing in the vision tower is trained."""
        return ImageCost(self.feature_blocks[-1], None, self.projector.products("projector", images, input_grad=False))

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """Return `text_tokens`: nothing is inserted into the text."""
        return text_tokens

    def token_cost(self, samples: int, tokens: int, read: int, *, decoding: bool) -> TokenCost:
        """Return the products of the prompts and the image feature.

        They are their keys and values, the scores of the prompts, and the weighted sum of the values.
        """
        prompts = self.config.num_prompts
        prepared, products = [], []
        for index, attention in enumerate(self.attentions):
            for layer in (attention.k_proj, attention.v_proj):
                prepared.append(linear("prompts", layer, prompts + samples, input_grad=True, trained=False))
            width = attention.o_proj.in_features
            rows = samples * (read if index == len(self.attentions) - 1 else tokens)
            # The heads are counted together, because each one reads its own part of the width.
            products += [
                matmul("prompts", rows, width, prompts, gradients=2 if index else 1),
                matmul("prompts", rows, prompts, width, gradients=2),
            ]
        return TokenCost(Entry(self.num_layers - len(self.attentions), "attention"), prepared, products)

    def reference_only(self) -> dict[str, int]:
        """Return an empty dictionary: the paper's count is exactly what is trained here."""
        return {}


def attach_zero_init_attention(backbone: Backbone, count: int) -> tuple[ZeroInitAttention, ...]:
    """Replace the attention of the top `count` decoder layers. The layers then take the keyword `prompts`.

    Args:
        backbone: the backbone, which is changed in place.
        count: how many layers are adapted, at least 1.

    Returns:
        The new attentions, from the lowest layer to the highest.

    Raises:
        ValueError: a layer's attention is not Llama's.
    """
    attentions = []
    layers = backbone.llm.model.layers
    for index in range(len(layers) - count, len(layers)):
        layer = layers[index]
        if not isinstance(layer.self_attn, LlamaAttention):
            raise ValueError(
                f"LLaMA-Adapter needs Llama's attention, not {type(layer.self_attn).__name__}; give a Llama model"
            )
        layer.self_attn = ZeroInitAttention(layer.self_attn)
        layers[index] = AdaptedDecoderLayer(layer)
        attentions.append(layer.self_attn)
    return tuple(attentions)
