"""Many methods on one set of frozen weights: each gets its own modules to wrap, none its own copy of a weight."""

from copy import deepcopy
from dataclasses import replace
from typing import cast

from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from harness.backbone.loader import Backbone


def share_backbone(backbone: Backbone, repeat: int = 1) -> Backbone:
    """A backbone of new modules over the same parameters and buffers, for one more method to be attached to.

    Methods wrap or replace submodules in place, so that two of them cannot live in one module tree; at 7B a tree of
    weights for each of them would not fit a device either. Values are shared, not copied: do not train them.

    Args:
        backbone: with no method attached; it stays as it is.
        repeat: how often the decoder layers follow one another in the copy; 2: twice the depth, no more weights.
    """
    shared: dict[int, object] = {}
    for module in backbone.modules():
        shared |= {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    llm, vision = deepcopy(backbone.llm, dict(shared)), deepcopy(backbone.vision, dict(shared))
    if repeat > 1:
        memo = {**shared, id(backbone.llm.config): llm.config}
        more = [layer for _ in range(repeat - 1) for layer in deepcopy(backbone.llm.model.layers, dict(memo))]
        llm.model.layers = nn.ModuleList([*llm.model.layers, *more])
        llm.config.num_hidden_layers = len(llm.model.layers)
        for index, layer in enumerate(llm.model.layers):
            cast(LlamaDecoderLayer, layer).self_attn.layer_idx = index
    return replace(backbone, llm=llm, vision=vision)
