"""Initial weights with which a small Llama finds things in its context from the start.

Answering "what stood before this word" takes two steps of attention: a column must know the token just before it, and
must find where the token that it asks for stands. From random weights both have to appear together, which takes long.
So half of the heads start as one of these:

- in even layers they look one token back; those of layer 0 copy what is there into the second half of the hidden state,
  which the embeddings leave nearly empty;
- in odd layers they look at like tokens; those of layer 1 look for the token that was one back (query from the second
  half, key from the first) and copy what stood before it.

Everything else starts at random and small, so that both halves stay readable, and all weights are trained.

Legend: H heads, D head width, E hidden width. Rotary pairs are (i, i + D/2), as in transformers' Llama.
"""

from typing import Any

import torch
from transformers import LlamaForCausalLM

HEADS_PREPARED = 2
CONSTANT = 0.5  # first coordinate of every token's embedding: what "one back" is built on
BACK_SCALE, BACK_PAIRS = 1.6, 6  # strength and number of the fast rotary pairs that point one token back
LIKE_SCALE = 0.22  # std of the shared query and key weights of heads that look for like tokens
NAMED_SCALE = 0.3  # the same of heads that look for the token that was one back
MOVED_SCALE = 0.16  # of what "one back" writes: about as large as an embedding
FOUND_SCALE = 0.4  # of what is read at the named token
RESIDUAL_SCALE = 0.2  # of what the other heads and the FFNs write, on top of GPT-2's 1 / sqrt(2 · layers)
QUIET = 0.1  # of the embeddings' second half, into which "one back" writes


@torch.no_grad()
def prepare_attention(model: LlamaForCausalLM) -> None:
    """Set the first two heads of every layer and the embeddings.

    The other heads' keys start as copies of their queries. Residual outputs start small, as in GPT-2, so that what a
    token is stays readable for the heads of later layers.
    """
    residual_scale = RESIDUAL_SCALE * (2 * len(model.model.layers)) ** -0.5
    heads = model.config.num_attention_heads
    width = model.config.hidden_size // heads
    half = HEADS_PREPARED * width
    model.model.embed_tokens.weight[:, half:] *= QUIET
    model.model.embed_tokens.weight[:, 0] = CONSTANT
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        attention.o_proj.weight.mul_(residual_scale)
        layer.mlp.down_proj.weight.mul_(residual_scale)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        query_HDE = attention.q_proj.weight.view(heads, width, -1)[:HEADS_PREPARED]
        key_HDE = attention.k_proj.weight.view(heads, width, -1)[:HEADS_PREPARED]
        if index % 2 == 0:
            _look_one_back(query_HDE, key_HDE)
        else:
            _look_for_the_like(query_HDE, key_HDE)
        if index == 0:
            _move(attention, range(half), range(half, 2 * half), MOVED_SCALE)
        if index == 1:
            _look_for_the_named(query_HDE, key_HDE, half)
            _move(attention, range(half, 2 * half), range(half), FOUND_SCALE)


def _move(attention: Any, source: range, target: range, scale: float) -> None:
    """Values of the prepared heads: the coordinates `source` of what they look at are written to `target`."""
    rows = torch.arange(len(source))
    attention.v_proj.weight[: len(rows)] = 0
    attention.v_proj.weight[rows, torch.tensor(source)] = 1
    attention.o_proj.weight[:, : len(rows)] = 0
    attention.o_proj.weight[torch.tensor(target), rows] = scale


def _look_for_the_named(query_HDE: torch.Tensor, key_HDE: torch.Tensor, moved: int) -> None:
    """Queries from the token that was one back, keys from the token itself, on the slow rotary pairs only."""
    weight_HDE = _on_slow_pairs(NAMED_SCALE * torch.randn(*query_HDE.shape[:2], moved))
    query_HDE.zero_()
    key_HDE.zero_()
    query_HDE[:, :, moved:] = weight_HDE
    key_HDE[:, :, :moved] = weight_HDE


def _on_slow_pairs(weight_HDE: torch.Tensor) -> torch.Tensor:
    """The weights with the fast half of the rotary pairs, and what reads the constant coordinate, set to 0."""
    half = weight_HDE.shape[1] // 2
    weight_HDE[:, : half // 2] = 0
    weight_HDE[:, half : half + half // 2] = 0
    weight_HDE[:, :, 0] = 0
    return weight_HDE


def _look_one_back(query_HDE: torch.Tensor, key_HDE: torch.Tensor) -> None:
    """Constant keys, and queries turned back by one position: the product peaks at distance one."""
    half = query_HDE.shape[1] // 2
    angles = torch.pow(10000.0, -torch.arange(BACK_PAIRS) / half)
    query_HDE.mul_(0.1)
    key_HDE.mul_(0.1)
    key_HDE[:, :BACK_PAIRS, 0] = BACK_SCALE
    query_HDE[:, :BACK_PAIRS, 0] = BACK_SCALE * angles.cos()
    query_HDE[:, half : half + BACK_PAIRS, 0] = -BACK_SCALE * angles.sin()


def _look_for_the_like(query_HDE: torch.Tensor, key_HDE: torch.Tensor) -> None:
    """Query and key weights alike, on the slow rotary pairs only: like content attracts at any distance."""
    weight_HDE = _on_slow_pairs(LIKE_SCALE * torch.randn(query_HDE.shape))
    query_HDE.copy_(weight_HDE)
    key_HDE.copy_(weight_HDE)
