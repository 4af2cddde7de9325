"""Initial attention weights with which a small Llama can look things up in its context from the start.

The question "which token came before this word?" takes two steps of attention. A position must know its previous
token, and it must find the position of the token that is asked for. With random weights both abilities must emerge
together, which takes long. Therefore half of the heads get prepared weights:

- In even layers these heads attend to the previous token. Those of layer 0 also copy its embedding into the second half
  of the hidden state, which the embeddings leave nearly empty.
- In odd layers these heads attend to tokens that are similar to their own. Those of layer 1 instead attend to tokens
  that are similar to the previous token, whose copy is in the second half, and copy the token before each of them.

All other weights start random and small, so that both halves of the hidden state stay readable. All weights are
trained.

Legend: H heads, D head width, E hidden width. Rotary pairs are (i, i + D/2), as in transformers' Llama.
Fast pairs rotate by a large angle per position, slow pairs by a small one.
"""

import torch
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention

PREPARED_HEADS = 2
"""How many heads per layer get prepared weights."""
CONSTANT = 0.5
"""First coordinate of every embedding. Heads that attend to the previous token build their queries and keys on it."""
PREVIOUS_SCALE, PREVIOUS_PAIRS = 1.6, 6
"""Strength and number of the fast rotary pairs that make a head attend to the previous token."""
SIMILAR_SCALE = 0.22
"""Standard deviation of the weights that queries and keys share in heads that attend to similar tokens."""
LOOKUP_SCALE = 0.3
"""The same for heads that attend to tokens similar to the previous token."""
COPY_SCALE = 0.16
"""Scale of the copy of the previous token; it makes the copy about as large as an embedding."""
FOUND_SCALE = 0.4
"""Scale of what is copied from a token that was looked up."""
RESIDUAL_SCALE = 0.2
"""Scale of the output of the other heads and the FFNs, in addition to GPT-2's 1 / sqrt(2 · layers)."""
SECOND_HALF_SCALE = 0.1
"""Scale of the second half of the embeddings, where the copy of the previous token is written."""


@torch.no_grad()
def prepare_attention(model: LlamaForCausalLM) -> None:
    """Set the weights of the prepared heads and scale the embeddings, in place.

    The keys of the other heads start as copies of their queries. What is added to the residual stream starts small, as
    in GPT-2, so that the heads of later layers can still read the embeddings.

    Args:
        model: a newly initialised model; torch's global seed decides the weights that are drawn here.
    """
    residual_scale = RESIDUAL_SCALE * (2 * len(model.model.layers)) ** -0.5
    heads = model.config.num_attention_heads
    width = model.config.hidden_size // heads
    half = PREPARED_HEADS * width
    model.model.embed_tokens.weight[:, half:] *= SECOND_HALF_SCALE
    model.model.embed_tokens.weight[:, 0] = CONSTANT
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        attention.o_proj.weight.mul_(residual_scale)
        layer.mlp.down_proj.weight.mul_(residual_scale)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        query_HDE = attention.q_proj.weight.view(heads, width, -1)[:PREPARED_HEADS]
        key_HDE = attention.k_proj.weight.view(heads, width, -1)[:PREPARED_HEADS]
        if index % 2 == 0:
            _attend_to_previous(query_HDE, key_HDE)
        else:
            _attend_to_similar(query_HDE, key_HDE)
        if index == 0:
            _copy_coordinates(attention, range(half), range(half, 2 * half), COPY_SCALE)
        if index == 1:
            _attend_to_similar_of_previous(query_HDE, key_HDE, half)
            _copy_coordinates(attention, range(half, 2 * half), range(half), FOUND_SCALE)


def _copy_coordinates(attention: LlamaAttention, source: range, target: range, scale: float) -> None:
    """Let the prepared heads copy the coordinates `source` of the tokens that they attend to into `target`."""
    rows = torch.arange(len(source))
    attention.v_proj.weight[: len(rows)] = 0
    attention.v_proj.weight[rows, torch.tensor(source)] = 1
    attention.o_proj.weight[:, : len(rows)] = 0
    attention.o_proj.weight[torch.tensor(target), rows] = scale


def _attend_to_similar_of_previous(query_HDE: torch.Tensor, key_HDE: torch.Tensor, half: int) -> None:
    """Compare the copy of the previous token (query) with other tokens (key), on the slow rotary pairs only.

    `half` is the coordinate of the hidden state at which the copy begins.
    """
    weight_HDE = _on_slow_pairs(LOOKUP_SCALE * torch.randn(*query_HDE.shape[:2], half))
    query_HDE.zero_()
    key_HDE.zero_()
    query_HDE[:, :, half:] = weight_HDE
    key_HDE[:, :, :half] = weight_HDE


def _on_slow_pairs(weight_HDE: torch.Tensor) -> torch.Tensor:
    """Set the weights of the fast half of the rotary pairs and of the constant coordinate to 0, and return them."""
    half = weight_HDE.shape[1] // 2
    weight_HDE[:, : half // 2] = 0
    weight_HDE[:, half : half + half // 2] = 0
    weight_HDE[:, :, 0] = 0
    return weight_HDE


def _attend_to_previous(query_HDE: torch.Tensor, key_HDE: torch.Tensor) -> None:
    """Use constant keys, and queries rotated back by one position: their product is largest at distance one."""
    half = query_HDE.shape[1] // 2
    angles = torch.pow(10000.0, -torch.arange(PREVIOUS_PAIRS) / half)
    query_HDE.mul_(0.1)
    key_HDE.mul_(0.1)
    key_HDE[:, :PREVIOUS_PAIRS, 0] = PREVIOUS_SCALE
    query_HDE[:, :PREVIOUS_PAIRS, 0] = PREVIOUS_SCALE * angles.cos()
    query_HDE[:, half : half + PREVIOUS_PAIRS, 0] = -PREVIOUS_SCALE * angles.sin()


def _attend_to_similar(query_HDE: torch.Tensor, key_HDE: torch.Tensor) -> None:
    """Use the same weights for queries and keys, so that similar tokens match at any distance.

    Only the slow rotary pairs are used, because they hardly depend on the distance.
    """
    weight_HDE = _on_slow_pairs(SIMILAR_SCALE * torch.randn(query_HDE.shape))
    query_HDE.copy_(weight_HDE)
    key_HDE.copy_(weight_HDE)
