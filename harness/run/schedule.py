"""The learning rate of the reference runs, stepped per iteration."""

import math


def learning_rate(epoch: float, *, peak: float, minimum: float, warmup_epochs: float, epochs: float) -> float:
    """Linear warm-up from zero, then half a cosine to `minimum`.

    Args:
        epoch: how far training is, in epochs, with fractions.
        peak: rate at the end of the warm-up.
        minimum: rate at the end.
        warmup_epochs: length of the warm-up.
        epochs: length of the whole run.

    Returns:
        The rate of the step that starts at `epoch`.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-12)
    return minimum + (peak - minimum) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
