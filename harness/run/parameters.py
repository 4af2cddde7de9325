"""How many parameters a method trains, and where they are: the `parameters` section of a record."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from harness.backbone.loader import Backbone
from harness.errors import UserError
from harness.records import ModuleCount, Parameters
from methods.base import adapter_parameters

_MODULE_DEPTH = 2


def count_parameters(backbone: Backbone, method: Any) -> Parameters:
    """The `parameters` section of a record, on any device.

    Args:
        backbone: the backbone that `method` is attached to.
        method: the method; its own parameters are what is trained.

    Returns:
        Counts under both conventions, and by module (see `module_of`).

    Raises:
        UserError: `reference_only` names a module that is trained.
    """
    own = adapter_parameters(method)
    trained = Counter[str]()
    for name, parameter in own.items():
        trained[module_of(name)] += parameter.numel()
    unused = method.reference_only()
    if both := sorted(trained.keys() & unused.keys()):
        raise UserError(
            f"method {method.name}: reference_only() names {both[0]}, which is trained; name what is not created"
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
    """The module a parameter is counted under: its path up to the first number, two names deep at most.

    `vision_adapters.3.down.weight` -> `vision_adapters`; `memory.projector.down.bias` -> `memory.projector`;
    a parameter that no module holds is its own.
    """
    path = parameter.split(".")[:-1] or [parameter]
    names: list[str] = []
    for part in path[:_MODULE_DEPTH]:
        if part.isdigit():
            break
        names.append(part)
    return ".".join(names) or parameter


def _total(modules: Sequence[nn.Module]) -> int:
    """Parameters of all the modules, each once: an attached method also hangs in the backbone."""
    return sum(p.numel() for p in {id(p): p for module in modules for p in module.parameters()}.values())
