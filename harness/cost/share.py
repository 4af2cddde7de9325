"""Give every method modules of its own over one set of frozen weights."""

from copy import deepcopy
from dataclasses import replace
from typing import cast

from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from harness.backbone.loader import Backbone


def share_backbone(backbone: Backbone, repeat: int = 1) -> Backbone:
    """Return a backbone of new modules that use the same parameters and buffers.

    Methods wrap or replace submodules in place, so each method needs a module tree of its own. Several copies of the 7B
    weights would not fit on a device. The values are shared, not copied, so they must not be trained.

    Args:
        backbone: with no method attached. It is not changed.
        repeat: how often the sequence of decoder layers is repeated in the new backbone; 2 gives twice the depth with
            the same weights.
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
