"""The learning-rate schedule of both trainings of the tiny backbone."""

import math

import torch


def warmup_cosine(optimizer: torch.optim.Optimizer, warmup: int, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a schedule that rises linearly over `warmup` steps and then falls to 0 along a cosine.

    Args:
        optimizer: its learning rate is scaled; the schedule is advanced once per optimiser step.
        warmup: number of steps until the full learning rate is reached.
        steps: number of steps of the whole training.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
