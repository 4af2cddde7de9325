"""Words told as sums of embeddings, instead of one a column.

A large language model reads far more in a column than one word of its vocabulary; a small one that has only ever seen
embeddings of single words does not, and a method that adds what it sees to hidden states, or puts it in columns of its
own, would speak to it in vain. So the tiny language model also learns from documents in which the scene's words are not
in the text. Their embeddings, each with a random weight, are added up and told in one of two ways, drawn evenly:

- in one to eight columns of their own behind BOS, each word in a random part of these columns;
- at every column, from a random layer on.

No picture and no method of the benchmark is involved. Legend: B documents, L tokens, W words, D hidden width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

OWN_COLUMNS = (1, 2, 4, 8)
WEIGHTS = (0.6, 1.5)  # of a word in the sum


@dataclass(frozen=True)
class Overlay:
    """What is told to one document besides its text.

    Attributes:
        words: token ids of the words.
        shares: one row a column of its own, one weight a word; a single row for "at every column".
        own: whether the rows are columns behind BOS.
    """

    words: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]
    own: bool


def draw_overlay(rng: Random, words: Sequence[int], own: bool | None = None) -> Overlay:
    """Draw the way (unless `own` says it) and the weights in which `words` are told."""

    def weight() -> float:
        low, high = WEIGHTS
        return low * (high / low) ** rng.random()

    if rng.random() < 0.5 if own is None else not own:
        return Overlay(tuple(words), (tuple(weight() for _ in words),), own=False)
    count, told = rng.choice(OWN_COLUMNS), rng.choice((0.0, 0.5, 1.0))
    columns = [[weight() if rng.random() < told else 0.0 for _ in words] for _ in range(count)]
    for index in range(len(words)):
        if not any(column[index] for column in columns):
            rng.choice(columns)[index] = weight()
    return Overlay(tuple(words), tuple(map(tuple, columns)), own=True)


@dataclass(frozen=True)
class OverlayBatch:
    """The overlays of a batch.

    Attributes:
        words_BW: token ids.
        weights_BLW: how much of a word is added at a column.
        own_B: documents with columns of their own; those are filled before the first layer.
        start_layer: before which the other documents' sums are added.
    """

    words_BW: Tensor
    weights_BLW: Tensor
    own_B: Tensor
    start_layer: int

    def values(self, model: LlamaForCausalLM) -> Tensor:
        """What is added, `B×L×D`."""
        return self.weights_BLW @ model.model.embed_tokens(self.words_BW)


def collate_overlays(
    overlays: Sequence[Overlay | None], length: int, pad: int, start_layer: int
) -> OverlayBatch | None:
    """The overlays of a batch of documents of `length` columns; None if no document has one."""
    if not any(overlays):
        return None
    width = max(len(overlay.words) for overlay in overlays if overlay)
    words_BW = torch.full((len(overlays), width), pad)
    weights_BLW = torch.zeros(len(overlays), length, width)
    for row, overlay in enumerate(overlays):
        if overlay is None:
            continue
        count = len(overlay.words)
        words_BW[row, :count] = torch.tensor(overlay.words)
        shares = torch.tensor(overlay.shares)
        columns = slice(1, 1 + len(shares)) if overlay.own else slice(0, length)
        weights_BLW[row, columns, :count] = shares
    own_B = torch.tensor([overlay is not None and overlay.own for overlay in overlays])
    return OverlayBatch(words_BW, weights_BLW, own_B, start_layer)


@contextmanager
def overlaid(model: LlamaForCausalLM, batch: OverlayBatch | None) -> Iterator[None]:
    """While open, the batch's sums are added to the hidden states before its start layer."""
    if batch is None:
        yield
        return
    values_BLD = batch.values(model)
    own_B11 = batch.own_B[:, None, None]

    def add(sums_BLD: Tensor) -> Callable[[Any, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        return lambda layer, args: (args[0] + sums_BLD[:, : args[0].shape[1]], *args[1:])

    layers = model.model.layers
    handles = [
        layers[0].register_forward_pre_hook(add(values_BLD * own_B11)),
        layers[batch.start_layer].register_forward_pre_hook(add(values_BLD * ~own_B11)),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
