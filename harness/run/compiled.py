"""Compile a model by regions: each decoder layer, each CLIP block, and each module and declared function of the method.

All layers of one kind share one graph, so a model of 32 layers compiles as fast as a model of two. A graph of the whole
model would take minutes per method.

Layers can share a graph only if their code does not depend on their index. A method gives its inputs to the layers as
lists with one item per layer (`methods.base.Method.layer_inputs`), and the key-value cache has one part per layer.
Outside the compiled code, each layer is therefore given only its own item and its own part, which it finds at index 0.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.config.plan import RunPlan
from harness.errors import foreign
from methods.cache_keyword import CACHE_KEYWORD
from methods.tuned import TunedModel

GRAPHS_PER_MODEL = 16
"""Compiled graphs allowed per model. Training, prefill and decoding with a growing mask together need fewer."""


def require_capturable(
    plans: Iterable[RunPlan], device: torch.device, otherwise: str = "give --set captured=false"
) -> None:
    """Check that code can be compiled, if one of these runs is captured. Without a GPU none can be, compiler or not.

    Args:
        plans: the runs.
        device: where they are made.
        otherwise: as in `require_compiler`.

    Raises:
        UserError: code cannot be compiled.
    """
    if device.type == "cuda" and any(plan.recipe.captured for plan in plans):
        require_compiler(device, otherwise)


def require_compiler(device: torch.device, otherwise: str) -> None:
    """Check that torch can compile code for a device, by compiling and running a small function.

    On a GPU too, this needs a C compiler and Python's headers: the code that starts a kernel is compiled when it runs.

    Args:
        device: where the code runs.
        otherwise: what a user can do who has no compiler, such as `remove --compile`.

    Raises:
        UserError: it cannot.
    """
    remedy = f"install a C compiler (gcc, g++) and Python's headers (python3-dev), or {otherwise}"
    with foreign(f"--device {device.type}: torch cannot compile code here", remedy):
        torch.compile(_next)(torch.ones(8, device=device))


def _next(values: Tensor) -> Tensor:
    return values + 1


@contextmanager
def compiled_regions(model: TunedModel) -> Iterator[None]:
    """Compile `model` in place, and give the layers back as they were at the end.

    Inside the context, the names of the parameters of the decoder layers differ from those outside. The compiled graphs
    are given up at the end: they count towards torch's limit, and a later run would use them in place of its own, so
    that its numbers could depend on the runs before it.
    """
    restore = compile_regions(model)
    try:
        with compile_limits(1):
            yield
    finally:
        restore()
        torch._dynamo.reset()


def compile_regions(model: TunedModel) -> Callable[[], None]:
    """Compile `model` in place, and return a function that undoes it."""
    layers = model.llm.model.layers
    before = list(layers)
    for index, layer in enumerate(before):
        layers[index] = CompiledLayer(layer, index)
    # This includes modules without a forward, such as lists. They are never called, so nothing is compiled for them.
    modules: list[Any] = [*model.vision.blocks, *model.method.children()]
    for module in modules:
        module.compile()
    names = getattr(model.method, "compiled_regions", ())
    for name in names:
        setattr(model.method, name, torch.compile(getattr(model.method, name)))

    def restore() -> None:
        for index, layer in enumerate(before):
            layers[index].restore()
            layers[index] = layer
        for module in modules:
            module._compiled_call_impl = None
        for name in names:
            delattr(model.method, name)  # the class's own function is visible again

    return restore


@contextmanager
def compile_limits(models: int) -> Iterator[None]:
    """Raise torch's limit of compiled graphs, so that every one of several models can be compiled.

    torch limits the number of graphs per piece of code, and all models run the same code. Beyond the limit torch would
    only warn and run uncompiled. In this context the limit is high enough, and exceeding it is an error.
    """
    limit = GRAPHS_PER_MODEL * models
    with torch._dynamo.config.patch(
        recompile_limit=limit, accumulated_recompile_limit=2 * limit, fail_on_recompile_limit_hit=True
    ):
        yield


class LayerCache:
    """The key-value cache of one layer, with the interface of a whole model's cache (`transformers.Cache.update`).

    Args:
        layer: the part of the model's cache that belongs to the layer.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values to the layer's own and return all of them; `layer_idx` is ignored."""
        all_keys, all_values = self.layer.update(keys, values, *args, **kwargs)
        return all_keys, all_values


class CompiledLayer(nn.Module):
    """A decoder layer whose compiled code does not depend on its index.

    Args:
        layer: the decoder layer, including a method's modules. The `layer_idx` of all its modules becomes 0.
        index: position of the layer in the model.
    """

    def __init__(self, layer: nn.Module, index: int) -> None:
        super().__init__()
        self.layer = layer
        self.index = index
        indexed: list[Any] = [module for module in layer.modules() if hasattr(module, "layer_idx")]
        self._indices = [(module, module.layer_idx) for module in indexed]
        for module in indexed:
            module.layer_idx = 0
        layer.compile()

    def restore(self) -> None:
        """Make the layer what it was before."""
        for module, layer_idx in self._indices:
            module.layer_idx = layer_idx
        self.layer._compiled_call_impl = None

    @property
    def selects_columns(self) -> bool:
        """Whether the layer can compute selected columns alone (`methods.decoder`)."""
        return bool(getattr(self.layer, "selects_columns", False))

    def forward(self, hidden_states: Tensor, **layer_inputs: Any) -> Tensor:
        """Apply the layer to `B×T×D`; what the layer writes into its item of a list is kept in the list."""
        lists = {name: value for name, value in layer_inputs.items() if isinstance(value, list)}
        own: dict[str, Any] = {name: [value[self.index]] for name, value in lists.items()}
        cache = layer_inputs.get(CACHE_KEYWORD)
        if cache is not None:
            own[CACHE_KEYWORD] = LayerCache(cache.layers[self.index])
        output_BTD: Tensor = self.layer(hidden_states, **{**layer_inputs, **own})
        for name, value in lists.items():
            value[self.index] = own[name][0]
        return output_BTD
