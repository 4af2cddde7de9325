"""Which parameters are trained, and to which of them weight decay applies."""

import re

from torch import Tensor, nn

from methods.base import Backbone

_BIAS = re.compile(r"bias(_[A-Z0-9]+)?$")


def freeze(backbone: Backbone, method: nn.Module) -> None:
    """Freeze the backbone and leave exactly the method's own parameters trainable.

    Args:
        backbone: the backbone that the method is attached to; its `requires_grad` flags change in place.
        method: the method; all its parameters become trainable.
    """
    for module in backbone.modules():
        module.requires_grad_(False)
    method.requires_grad_(True)


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay applies to a parameter: to all but biases and parameters with one dimension.

    A method declares a bias by its name, which ends in `bias`. A shape suffix may follow, as in `up_bias_EC`, the
    biases of several layers in one tensor. A parameter that is several vectors in one tensor but no bias is decayed.

    Args:
        name: the parameter's name, with the names of the modules that it is in.
        parameter: the parameter.
    """
    return parameter.ndim > 1 and _BIAS.search(name) is None


def adapter_parameters(method: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters of a method by name. These are saved, counted and optimised."""
    return dict(method.named_parameters())
