"""A Llama decoder layer with two places for a method's modules: before the attention and parallel to the FFN.

This is the only file that repeats the structure of the decoder layer of `transformers`. Submodules keep their names, so
the frozen weights keep their keys in the state dict of the language model. Those of the method's modules are added.

Such a layer can also compute its output at selected columns alone, which `methods.tuned.run_decoder` asks of the last
layer. A layer of another class may do the same: its attribute `selects_columns` is then true, and it takes the keyword
`read_BR`. A layer without the attribute computes every column.

Shape suffixes as in `methods.base`.
"""

from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.modeling_llama import LlamaAttention

from methods.attention import SelectiveAttention
from methods.cache_keyword import CACHE_KEYWORD
from methods.selection import take


class AdaptedDecoderLayer(GradientCheckpointingLayer):
    """A `LlamaDecoderLayer` with a method's modules inside.

    With x = input_layernorm(h), a = attention(before_attention(x)) and u = post_attention_layernorm(h + a), the output
    is `h + a + mlp(u) + beside_ffn(u)`. Either module may be absent.

    Args:
        layer: the frozen layer; its submodules are reused, not copied.
        before_attention: called as `(x_BTD, cache=…, **layer_inputs)`; its output replaces the attention's input.
        beside_ffn: called as `(u_BTD, **layer_inputs)`; its output is added to that of the FFN. If its attribute
            `token_wise` is true, its output at a column depends on no other column, and it may be given some columns
            alone.
    """

    def __init__(
        self,
        layer: Any,
        *,
        before_attention: nn.Module | None = None,
        beside_ffn: nn.Module | None = None,
    ) -> None:
        super().__init__()
        attention = layer.self_attn
        self.self_attn = SelectiveAttention(attention) if type(attention) is LlamaAttention else attention
        self.mlp = layer.mlp
        self.input_layernorm = layer.input_layernorm
        self.post_attention_layernorm = layer.post_attention_layernorm
        self.before_attention = before_attention
        self.beside_ffn = beside_ffn
        self.gradient_checkpointing = layer.gradient_checkpointing
        if self.gradient_checkpointing:
            self._gradient_checkpointing_func = layer._gradient_checkpointing_func
        self.train(layer.training)

    @property
    def selects_columns(self) -> bool:
        """Whether `forward` takes `read_BR`."""
        token_wise = self.beside_ffn is None or getattr(self.beside_ffn, "token_wise", False)
        return isinstance(self.self_attn, SelectiveAttention) and token_wise

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        read_BR: Tensor | None = None,
        **layer_inputs: Any,
    ) -> Tensor:
        """Run the layer.

        Args:
            hidden_states: `B×T×D`.
            attention_mask, position_ids, use_cache, position_embeddings: as in `LlamaDecoderLayer`.
                With selected columns, the rows of the mask are theirs.
            read_BR: the columns to compute, only where `selects_columns` is true; None for all.
            layer_inputs: the key-value cache, and what the method gives in `methods.base.Method.layer_inputs`.

        Returns:
            The next hidden states at the selected columns, `B×R×D`, or at all of them, `B×T×D`.
        """
        cache = layer_inputs.pop(CACHE_KEYWORD, None)
        x_BTD = self.input_layernorm(hidden_states)
        if self.before_attention is not None:
            x_BTD = self.before_attention(x_BTD, cache=cache, **layer_inputs)
        own = {"read_BR": read_BR, **layer_inputs} if isinstance(self.self_attn, SelectiveAttention) else {}
        attended_BRD, _ = self.self_attn(
            hidden_states=x_BTD,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            position_embeddings=position_embeddings,
            **{CACHE_KEYWORD: cache},
            **own,
        )
        if read_BR is not None:
            hidden_states = take(hidden_states, read_BR)
        hidden_states = hidden_states + attended_BRD
        u_BRD = self.post_attention_layernorm(hidden_states)
        hidden_states = hidden_states + self.mlp(u_BRD)
        if self.beside_ffn is not None:
            hidden_states = hidden_states + self.beside_ffn(u_BRD, **layer_inputs)
        return hidden_states


def select_in_last_layer(llm: Any) -> None:
    """Wrap the last decoder layer in place, so that it can compute selected columns alone. Its output stays the same.

    A method that leaves the last layer as it is calls this once everything else is attached.

    Args:
        llm: the language model; its last layer is one of `transformers`.
    """
    llm.model.layers[-1] = AdaptedDecoderLayer(llm.model.layers[-1])
