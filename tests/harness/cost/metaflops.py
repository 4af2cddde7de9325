"""FLOPs that torch's own counter finds in the real modules, on the meta device."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from methods.base import Batch
from methods.tuned import TunedModel


def meta_batch(backbone: Any, samples: int, length: int, labels: int) -> Batch:
    """Return a batch without values. Every sample has an image, and its last `labels` tokens are labelled."""
    size = backbone.vision.image_size
    ids = torch.zeros(samples, length, dtype=torch.long)
    labelled = torch.arange(length).expand(samples, -1) >= length - labels
    images = torch.zeros(1).expand(samples, 3, size, size)
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    return Batch(ids, everywhere, ids.where(labelled, -100), images, everywhere[:, 0]).to("meta")


def measured_train(backbone: Any, method: Any, samples: int, length: int, labels: int) -> int:
    """Return the FLOPs of one forward and backward pass of a training batch."""
    model = TunedModel(backbone, method).train()
    batch = meta_batch(backbone, samples, length, labels)
    with FlopCounterMode(display=False) as counter:
        model(batch).backward()
    return counter.get_total_flops()


def measured_inference(backbone: Any, method: Any, samples: int, length: int, new_tokens: int) -> int:
    """Return the FLOPs of encoding the images, prefill and decoding of a batch."""
    # torch's counter fails on parameters that require a gradient where none is computed.
    model = TunedModel(backbone, method).eval().requires_grad_(False)
    batch = meta_batch(backbone, samples, length, labels=0)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits, state = model.prefill(batch)
        for _ in range(new_tokens - 1):
            logits = model.step(logits.argmax(dim=-1), state)
    return counter.get_total_flops()
