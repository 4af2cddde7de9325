"""torch's own FLOP counter on the real modules, on the meta device."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from methods.base import IGNORE_INDEX, Batch
from methods.tuned import TunedModel


class KnownMasks(TorchDispatchMode):
    """Answers what the meta device cannot: every condition holds, every mask selects `selected` rows.

    So a model that asks "do all samples have an image" or picks its labelled tokens runs on shapes alone.
    """

    def __init__(self, selected: int) -> None:
        super().__init__()
        self.selected = selected

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return True
        if func is torch.ops.aten.nonzero.default:
            return args[0].new_empty(self.selected, args[0].ndim, dtype=torch.long)
        return func(*args, **(kwargs or {}))


def meta_batch(backbone: Any, samples: int, length: int) -> Batch:
    """A batch of shapes, every sample with an image."""
    size = backbone.vision.image_size
    with torch.device("meta"):
        ids = torch.empty(samples, length, dtype=torch.long)
        return Batch(
            ids,
            torch.empty(samples, length, dtype=torch.bool),
            torch.full((samples, length), IGNORE_INDEX),
            torch.empty(samples, 3, size, size),
            torch.empty(samples, dtype=torch.bool),
        )


def measured_train(backbone: Any, method: Any, samples: int, length: int, labels: int) -> int:
    """FLOPs of one forward and backward of a training batch."""
    model = TunedModel(backbone, method).train()
    batch = meta_batch(backbone, samples, length)
    with KnownMasks(samples * labels), FlopCounterMode(display=False) as counter:
        model(batch).backward()
    return counter.get_total_flops()


def measured_inference(backbone: Any, method: Any, samples: int, length: int, new_tokens: int) -> int:
    """FLOPs of encoding the images, the prefill and the decoded tokens of a batch."""
    # torch's counter trips over parameters that want a gradient where none is computed.
    model = TunedModel(backbone, method).eval().requires_grad_(False)
    batch = meta_batch(backbone, samples, length)
    with torch.no_grad(), KnownMasks(samples), FlopCounterMode(display=False) as counter:
        logits, state = model.prefill(batch)
        for _ in range(new_tokens - 1):
            logits = model.step(logits.argmax(dim=-1), state)
    return counter.get_total_flops()
