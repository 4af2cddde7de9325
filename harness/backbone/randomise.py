"""Random weights for measurements of cost: they have the right sizes and plausible magnitudes, but are untrained."""

import torch
from torch import nn


def randomise(module: nn.Module, seed: int) -> None:
    """Overwrite a module's parameters, on the device that holds them.

    Matrices and the class embedding get normal values with standard deviation 0.02. Norm weights become one, and biases
    become zero.

    Args:
        module: overwritten in place.
        seed: seed of the random values.
    """
    device = next(module.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim >= 2 or name.endswith("class_embedding"):
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
