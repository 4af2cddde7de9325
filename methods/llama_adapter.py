"""LLaMA-Adapter: prompts in the upper layers behind a zero-initialised gate.

Paper: Zhang, Han, Liu, Gao, Zhou, Hu, Yan, Lu, Li, Qiao, "LLaMA-Adapter: Efficient Fine-tuning of Language Models with
Zero-init Attention", 2023. https://arxiv.org/abs/2303.16199

The code of the paper's ScienceQA run was never published: **the image branch is a reconstruction**. The paper says
that global CLIP features of several scales are concatenated and go through a small MLP; here these are the CLS tokens
of the blocks that end the four visual groups, through `4·C → 64 → hidden_size` with SiLU, which fits the printed
count. The language side is the published one.

Deviations from the published code, and why:
- The image feature is multiplied by the has-image flag; the published multimodal code feeds a text-only sample an
  all-zero image, so that its output depends on what CLIP makes of that.
- Keys and values of a prompt plus an image feature are the sum of the two projections, which is the same by linearity
  and projects an image once instead of once a prompt; they are computed once for a prompt's decoding.
- Grouped-query models: the prompts' heads are repeated as the text's are.

`peft`'s adaption prompt cannot carry the image: its prompt is one parameter of the module, the same for every sample,
and its attention takes no further input. It also has one gate a layer (not one a head), without the tanh, and runs
the query projection twice.

Shape suffixes as in `methods.base`; K prompts, Y adapted layers, N heads of the queries, M of keys and values,
X width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    apply_rotary_pos_emb,
    eager_attention_forward,
    repeat_kv,
)

from methods.adapters import Projector
from methods.base import Backbone, Batch, InputSequence, MethodConfig, Source, VisualFeatures, plain_sequence
from methods.cache_keyword import CACHE_KEYWORD
from methods.checks import check_divisible
from methods.cost import Entry, ImageCost, TokenCost, linear, matmul


class LLaMAAdapterConfig(MethodConfig):
    """Sizes of LLaMA-Adapter; the defaults are the published 7B run's."""

    num_prompts: int = Field(10, ge=1, description="prompts a layer")
    num_adapter_layers: int | None = Field(
        None, ge=1, description="adapted layers, counted from the top; None: all but the first two"
    )
    prompt_std: float = Field(1.0, ge=0, description="standard deviation of the prompts at init")
    num_scales: int = Field(4, ge=1, description="CLIP depths whose CLS tokens are concatenated, evenly spaced")
    projector_dim: int = Field(64, ge=1, description="width between the image branch's two layers")


@dataclass(frozen=True)
class PromptMemory:
    """The prompts of one layer, ready to be attended to.

    Attributes:
        keys_BMKX, values_BMKX: the layer's frozen projections of `P + I`, not rotated.
        gate_N: the zero-initialised gate of each head, before the tanh.
    """

    keys_BMKX: Tensor
    values_BMKX: Tensor
    gate_N: Tensor


class ZeroInitAttention(nn.Module):
    """`LlamaAttention` with prompts behind a gate: `o_proj(attention(text) + tanh(g) · attention(prompts))`.

    Two separate softmaxes. Submodules keep their names, so a state dict of the language model reads the same.

    Args:
        attention: the frozen attention; its submodules are taken over, not copied.
    """

    is_causal = True

    def __init__(self, attention: LlamaAttention) -> None:
        super().__init__()
        self.config = attention.config
        self.layer_idx = attention.layer_idx
        self.head_dim = attention.head_dim
        self.num_key_value_groups = attention.num_key_value_groups
        self.scaling = attention.scaling
        self.attention_dropout = attention.attention_dropout
        self.q_proj = attention.q_proj
        self.k_proj = attention.k_proj
        self.v_proj = attention.v_proj
        self.o_proj = attention.o_proj
        self.train(attention.training)

    def heads(self, x: Tensor) -> Tensor:
        """`B×T×(heads·X)` to `B×heads×T×X`."""
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def prompt_memory(self, prompts_KD: Tensor, image_BKD: Tensor, gate_N: Tensor) -> PromptMemory:
        """Keys and values of `P + I`; `image_BKD` may have one row for all prompts."""
        keys, values = (
            self.heads(layer(prompts_KD) + F.linear(image_BKD, layer.weight)) for layer in (self.k_proj, self.v_proj)
        )
        return PromptMemory(keys, values, gate_N)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        prompts: Sequence[Any],
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """`B×T×D` to `B×T×D` (and the attention weights, where the implementation gives them).

        `prompts` holds a `PromptMemory` for this layer.
        """
        cache = kwargs.pop(CACHE_KEYWORD, None)
        query_BNTX, key_BMTX = apply_rotary_pos_emb(
            self.heads(self.q_proj(hidden_states)), self.heads(self.k_proj(hidden_states)), *position_embeddings
        )
        value_BMTX = self.heads(self.v_proj(hidden_states))
        if cache is not None:
            key_BMTX, value_BMTX = cache.update(key_BMTX, value_BMTX, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        attended_BTNX, weights = attend(
            self,
            query_BNTX,
            key_BMTX,
            value_BMTX,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        attended_BTNX = attended_BTNX + self._attend_to_prompts(query_BNTX, prompts[self.layer_idx])
        return self.o_proj(attended_BTNX.flatten(2)), weights

    def _attend_to_prompts(self, query_BNTX: Tensor, memory: PromptMemory) -> Tensor:
        """`tanh(g) · softmax(q Kᵀ / √X) V` over the prompts alone, `B×T×N×X`."""
        prompted_BNTX = F.scaled_dot_product_attention(
            query_BNTX,
            repeat_kv(memory.keys_BMKX, self.num_key_value_groups).to(query_BNTX.dtype),
            repeat_kv(memory.values_BMKX, self.num_key_value_groups).to(query_BNTX.dtype),
            scale=self.scaling,
        )
        return prompted_BNTX.transpose(1, 2) * memory.gate_N.tanh().to(query_BNTX.dtype)[:, None]


class LLaMAAdapter(nn.Module):
    """LLaMA-Adapter attached to a backbone.

    Args:
        backbone: the frozen backbone; the attention of its upper decoder layers is replaced in place.
        config: sizes.

    Raises:
        ValueError: more adapted layers than there are, CLIP blocks that do not divide into `num_scales`, or an
            attention that is not Llama's.
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
        # A tuple, which registers nothing: the frozen projections stay out of this method's parameters.
        self.attentions = attach_zero_init_attention(backbone, count)

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """`image_BKD`, K = 1: the image feature I that every prompt of every layer gets."""
        features = backbone.vision.features(images_BCHW, self.feature_blocks, normalize=True)
        return {"image_BKD": self.projector(torch.cat([feature_BJC[:, :1] for feature_BJC in features], dim=-1))}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Text alone: prompts live in the attention."""
        return plain_sequence(backbone.llm.model.embed_tokens, batch)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """`prompts`: keys and values of every layer's prompts, None where the layer is not adapted."""
        image_BKD = visual["image_BKD"]
        image_BKD = image_BKD * visual["has_image_B"].to(image_BKD.dtype)[:, None, None]
        memories = [
            attention.prompt_memory(prompts_KD, image_BKD, gate_N)
            for attention, prompts_KD, gate_N in zip(self.attentions, self.prompts_YKD, self.gates_YN, strict=True)
        ]
        return {"prompts": [None] * (self.num_layers - len(memories)) + memories}

    def image_cost(self, images: int) -> ImageCost:
        """CLIP up to the last block read, which has nothing trained in it, and the image branch."""
        return ImageCost(self.feature_blocks[-1], None, self.projector.products("projector", images, input_grad=False))

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """The text's own."""
        return text_tokens

    def token_cost(self, samples: int, tokens: int, *, decoding: bool) -> TokenCost:
        """Keys and values of the prompts and of the image; scores of the prompts and their weighted sum."""
        prompts = self.config.num_prompts
        prepared, products = [], []
        for index, attention in enumerate(self.attentions):
            for layer in (attention.k_proj, attention.v_proj):
                prepared.append(linear("prompts", layer, prompts + samples, input_grad=True, trained=False))
            width = attention.o_proj.in_features
            # Rows of all heads at once: each head reads its own part of the width.
            products += [
                matmul("prompts", samples * tokens, width, prompts, gradients=2 if index else 1),
                matmul("prompts", samples * tokens, prompts, width, gradients=2),
            ]
        return TokenCost(Entry(self.num_layers - len(self.attentions), "attention"), prepared, products)

    def reference_only(self) -> dict[str, int]:
        """Nothing: the printed count is what is trained here."""
        return {}


def attach_zero_init_attention(backbone: Backbone, count: int) -> tuple[ZeroInitAttention, ...]:
    """Replace the attention of the top `count` decoder layers; layers then take `prompts=[…]`."""
    attentions = []
    for layer in backbone.llm.model.layers[-count:]:
        if not isinstance(layer.self_attn, LlamaAttention):
            raise ValueError(f"LLaMA-Adapter needs Llama's attention, not {type(layer.self_attn).__name__}")
        layer.self_attn = ZeroInitAttention(layer.self_attn)
        attentions.append(layer.self_attn)
    return tuple(attentions)
