"""Compilation by regions: each decoder layer and each CLIP block by itself, and every module of the method's own.

Layers of one kind share one graph, so that a model of 32 compiles as fast as one of two; a graph of the whole model
would take minutes for each method. What tells layers apart, their index and what they find by it, is taken out of the
compiled code: a layer is handed its own item of every list (`methods.base.Method.layer_inputs`) and its own part of
the cache, and finds both at index 0.
"""

from typing import Any

from torch import Tensor, nn

from methods.cache_keyword import CACHE_KEYWORD
from methods.tuned import TunedModel


def compile_regions(model: TunedModel) -> None:
    """Compile `model` in place. It is then for timing alone: the names of its parameters have changed."""
    layers = model.llm.model.layers
    for index, layer in enumerate(layers):
        layers[index] = CompiledLayer(layer, index)
    for block in model.vision.blocks:
        block.compile()
    # A module without a forward, such as a list, is never called.
    for module in model.method.children():
        module.compile()


class LayerCache:
    """The cache of one layer, in the place of a model's; see `transformers.Cache.update`."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append to the layer's keys and values, and return all of them."""
        return self.layer.update(keys, values, *args, **kwargs)


class CompiledLayer(nn.Module):
    """A decoder layer whose compiled code does not depend on its index.

    Args:
        layer: the decoder layer, with a method's modules in it; its modules' `layer_idx` become 0.
        index: which layer it is.
    """

    def __init__(self, layer: nn.Module, index: int) -> None:
        super().__init__()
        self.layer = layer
        self.index = index
        module: Any
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = 0
        layer.compile()

    def forward(self, hidden_states: Tensor, **layer_inputs: Any) -> Tensor:
        """`B×T×D` to `B×T×D`; what the layer leaves in a list is there afterwards."""
        lists = {name: value for name, value in layer_inputs.items() if isinstance(value, list)}
        own: dict[str, Any] = {name: [value[self.index]] for name, value in lists.items()}
        cache = layer_inputs.get(CACHE_KEYWORD)
        if cache is not None:
            own[CACHE_KEYWORD] = LayerCache(cache.layers[self.index])
        output_BTD = self.layer(hidden_states, **{**layer_inputs, **own})
        for name, value in lists.items():
            value[self.index] = own[name][0]
        return output_BTD
