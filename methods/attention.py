"""Llama's attention, with queries at all columns or at selected ones. Keys and values always come from all columns.

This is the only file that repeats the attention of `transformers`. Shape suffixes as in `methods.base`, and N heads of
the queries, M heads of keys and values, X width of a head.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention, eager_attention_forward, rotate_half

from methods.cache_keyword import CACHE_KEYWORD
from methods.selection import take


class SelectiveAttention(nn.Module):
    """A `LlamaAttention` that can compute its output at selected columns alone.

    Submodules keep their names, so the state dict of the language model has the same keys before and after.

    Args:
        attention: the frozen attention; its submodules are reused, not copied.
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
        """Split `B×T×(heads·X)` into heads, `B×heads×T×X`."""
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        read_BR: Tensor | None = None,
        **layer_inputs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Run the attention.

        Args:
            hidden_states: `B×T×D`.
            position_embeddings, position_ids: as in `LlamaAttention`, for all columns.
            attention_mask: as in `LlamaAttention`; with selected columns, its rows are theirs.
            read_BR: the columns to compute; None for all.
            layer_inputs: the key-value cache, and what the method gives in `methods.base.Method.layer_inputs`.

        Returns:
            The output at the selected columns, `B×R×D`, or at all of them, `B×T×D`; and the attention weights, or None
            where the implementation gives none.
        """
        cache = layer_inputs.pop(CACHE_KEYWORD, None)
        queries_BRD, query_rotary = hidden_states, position_embeddings
        if read_BR is not None:
            cos_BTX, sin_BTX = position_embeddings
            queries_BRD, query_rotary = take(hidden_states, read_BR), (take(cos_BTX, read_BR), take(sin_BTX, read_BR))
        query_BNRX = _rotate(self.heads(self.q_proj(queries_BRD)), *query_rotary)
        key_BMTX = _rotate(self.heads(self.k_proj(hidden_states)), *position_embeddings)
        value_BMTX = self.heads(self.v_proj(hidden_states))
        if cache is not None:
            key_BMTX, value_BMTX = cache.update(key_BMTX, value_BMTX, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        attended_BRNX, weights = attend(
            self,
            query_BNRX,
            key_BMTX,
            value_BMTX,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            position_ids=position_ids,
        )
        return self.o_proj(self.add_to_heads(attended_BRNX, query_BNRX, layer_inputs).flatten(2)), weights

    def add_to_heads(self, attended_BRNX: Tensor, query_BNRX: Tensor, layer_inputs: Mapping[str, Any]) -> Tensor:
        """Return what goes into the output projection, `B×R×N×X`. A method may add to the output of the heads here.

        Args:
            attended_BRNX: the output of the heads.
            query_BNRX: the rotated queries.
            layer_inputs: the method's keyword arguments.
        """
        return attended_BRNX


def _rotate(x_BNTX: Tensor, cos_BTX: Tensor, sin_BTX: Tensor) -> Tensor:
    """Apply rotary positions to queries or keys, as `apply_rotary_pos_emb` does to both."""
    return x_BNTX * cos_BTX[:, None] + rotate_half(x_BNTX) * sin_BTX[:, None]
