"""The optimiser of every method, and which parameters get weight decay."""

import torch
from torch import nn

from harness.config.recipe import TrainRecipe
from methods.parameters import is_decayed


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return AdamW's groups of the trainable parameters. Those that `is_decayed` leaves out get no weight decay.

    Args:
        module: its trainable parameters are grouped.
        weight_decay: weight decay of all other parameters.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    plain = [p for name, p in named if not is_decayed(name, p)]
    decayed = [p for name, p in named if is_decayed(name, p)]
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(module: nn.Module, recipe: TrainRecipe, rate: float = 0.0) -> torch.optim.AdamW:
    """Return the optimiser of every method: fused AdamW over `parameter_groups`.

    Args:
        module: its trainable parameters are optimised.
        recipe: weight decay and betas.
        rate: learning rate until it is set for the first step.
    """
    groups = parameter_groups(module, recipe.weight_decay)
    return torch.optim.AdamW(groups, lr=rate, betas=recipe.betas, fused=True)
