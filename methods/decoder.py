"""A Llama decoder layer with two places for a method's modules: before the attention and parallel to the FFN.

This is the only file that repeats the structure of the decoder layer of `transformers`. Submodules keep their names, so
the state dict of the language model has the same keys before and after. Shape suffixes as in `methods.base`.
"""

from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from methods.cache_keyword import CACHE_KEYWORD


class AdaptedDecoderLayer(GradientCheckpointingLayer):
    """A `LlamaDecoderLayer` with a method's modules inside.

    With x = input_layernorm(h), a = attention(before_attention(x)) and u = post_attention_layernorm(h + a), the output
    is `h + a + mlp(u) + beside_ffn(u)`. Either module may be absent.

    Args:
        layer: the frozen layer; its submodules are reused, not copied.
        before_attention: called as `(x_BTD, cache=…, **layer_inputs)`; its output replaces the attention's input.
        beside_ffn: called as `(u_BTD, **layer_inputs)`; its output is added to that of the FFN.
    """

    def __init__(
        self,
        layer: Any,
        *,
        before_attention: nn.Module | None = None,
        beside_ffn: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.self_attn = layer.self_attn
        self.mlp = layer.mlp
        self.input_layernorm = layer.input_layernorm
        self.post_attention_layernorm = layer.post_attention_layernorm
        self.before_attention = before_attention
        self.beside_ffn = beside_ffn
        self.gradient_checkpointing = layer.gradient_checkpointing
        if self.gradient_checkpointing:
            self._gradient_checkpointing_func = layer._gradient_checkpointing_func
        self.train(layer.training)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **layer_inputs: Any,
    ) -> Tensor:
        """Run the layer.

        Args:
            hidden_states: `B×T×D`.
            attention_mask, position_ids, use_cache, position_embeddings: as in `LlamaDecoderLayer`.
            layer_inputs: the key-value cache, and what the method gives in `methods.base.Method.layer_inputs`.

        Returns:
            The next hidden states, `B×T×D`.
        """
        cache = layer_inputs.pop(CACHE_KEYWORD, None)
        x_BTD = self.input_layernorm(hidden_states)
        if self.before_attention is not None:
            x_BTD = self.before_attention(x_BTD, cache=cache, **layer_inputs)
        attended_BTD, _ = self.self_attn(
            hidden_states=x_BTD,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            position_embeddings=position_embeddings,
            **{CACHE_KEYWORD: cache},
        )
        hidden_states = hidden_states + attended_BTD
        u_BTD = self.post_attention_layernorm(hidden_states)
        hidden_states = hidden_states + self.mlp(u_BTD)
        if self.beside_ffn is not None:
            hidden_states = hidden_states + self.beside_ffn(u_BTD, **layer_inputs)
        return hidden_states
