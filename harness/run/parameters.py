"""How many parameters a method trains, in total and by module: the `parameters` section of a record."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from harness.backbone.loader import Backbone
from harness.backbone.quantised import number_of_values
from harness.errors import UserError
from harness.records import ModuleCount, Parameters
from methods.parameters import adapter_parameters

_MODULE_DEPTH = 2
"""How many names of a parameter's dotted path form the name of its module, at most."""


def count_parameters(backbone: Backbone, method: Any) -> Parameters:
    """Return the `parameters` section of a record. The device may be any, the meta device included.

    Args:
        backbone: the backbone that the method is attached to.
        method: an `nn.Module` that satisfies `methods.base.Method`; its own parameters are the trained ones.

    Returns:
        Counts under both conventions and by module, see `module_of`.

    Raises:
        UserError: the method's `reference_only` names a module that is trained.
    """
    own = adapter_parameters(method)
    trained = Counter[str]()
    for name, parameter in own.items():
        trained[module_of(name)] += parameter.numel()
    unused = method.reference_only()
    if both := sorted(trained.keys() & unused.keys()):
        raise UserError(
            f"method {method.name}: reference_only() names {both[0]}, which is trained; name unused modules only"
        )
    by_module = {name: ModuleCount(count=count, status="trained") for name, count in trained.items()}
    by_module |= {
        name: ModuleCount(count=count, status="counted by the reference, unused") for name, count in unused.items()
    }
    return Parameters(
        trainable=trained.total(),
        paper_convention=trained.total() + sum(unused.values()),
        total=_total([*backbone.modules(), method]),
        by_module=by_module,
    )


def module_of(parameter: str) -> str:
    """Return the module under which a parameter is counted: its path up to the first number, at most two names.

    `vision_adapters.3.down.weight` counts under `vision_adapters`, and `memory.projector.down.bias` under
    `memory.projector`. A parameter directly on the method counts under its own name.

    Args:
        parameter: dotted name of the parameter.
    """
    path = parameter.split(".")[:-1] or [parameter]
    names: list[str] = []
    for part in path[:_MODULE_DEPTH]:
        if part.isdigit():
            break
        names.append(part)
    return ".".join(names) or parameter


def _total(modules: Sequence[nn.Module]) -> int:
    """Return the number of parameters. Those of an attached method are in the backbone too, and are counted once."""
    return sum(number_of_values(p) for p in {id(p): p for module in modules for p in module.parameters()}.values())
