"""Many methods on one set of frozen weights: each gets its own modules to wrap, none its own copy of a weight."""

from copy import deepcopy
from dataclasses import replace

from harness.backbone import Backbone


def share_backbone(backbone: Backbone) -> Backbone:
    """A backbone of new modules over the same parameters and buffers, for one more method to be attached to.

    Methods wrap or replace submodules in place, so that two of them cannot live in one module tree; at 7B a tree of
    weights for each of them would not fit a device either. Values are shared, not copied: do not train them.

    Args:
        backbone: with no method attached; it stays as it is.
    """
    shared: dict[int, object] = {}
    for module in backbone.modules():
        shared |= {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    llm, vision = (deepcopy(part, dict(shared)) for part in (backbone.llm, backbone.vision))
    return replace(backbone, llm=llm, vision=vision)
