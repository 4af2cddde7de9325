"""Words told as sums of embeddings, instead of one a column.

A large language model reads far more in a column than one word of its vocabulary; a small one that has only ever seen
embeddings of single words does not, and a method that adds what it sees to hidden states, or puts it in columns of its
own, would speak to it in vain. So the tiny language model also learns from documents in which the scene's words are not
in the text. Their embeddings, each with a random weight, are added up and told in one of two ways, drawn evenly:

- in one to eight columns of their own behind BOS, each word in a random part of these columns;
- at every column, before one of the first layers, or in parts before that layer and each later one.

No picture and no method of the benchmark is involved. Legend: B documents, L tokens, W words, D hidden width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

OWN_COLUMNS = (1, 2, 4, 8)
REPEATED = (0.12, 0.4)  # share of the sum that each layer gets, where it is added in parts
WEIGHTS = (0.6, 1.5)  # of a word in the sum
FAINTEST = 0.05  # every weight of a document is scaled by a factor between this and 1, where it may be faint
MAX_NOISE = 0.08  # standard deviation of what is added to each coordinate of a sum (an embedding's is 0.09)


@dataclass(frozen=True)
class Overlay:
    """What is told to one document besides its text.

    Attributes:
        words: token ids of the words.
        shares: one row a column of its own, one weight a word; a single row for "at every column".
        own: whether the rows are columns behind BOS.
        noise: standard deviation of noise on each coordinate of a row's sum.
    """

    words: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]
    own: bool
    noise: float = 0.0


def word_ids(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> list[int]:
    """Token ids of words of the world, each as it stands behind another word."""
    return [tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in words]


def draw_overlay(rng: Random, words: Sequence[int], own: bool | None = None, *, faint: bool = False) -> Overlay:
    """Draw how `words` are told.

    Args:
        rng: decides.
        words: token ids.
        own: whether in columns of their own; drawn if None.
        faint: with noise, half of the time faintly. What is hardly heard must move the answer a little, not at all or
            altogether: a method that starts with random features learns from these small movements.
    """
    noise = MAX_NOISE * rng.random() if faint else 0.0
    strength = FAINTEST ** rng.random() if faint and rng.random() < 0.5 else 1.0

    def weight() -> float:
        low, high = WEIGHTS
        return strength * low * (high / low) ** rng.random()

    if rng.random() < 0.5 if own is None else not own:
        return Overlay(tuple(words), (tuple(weight() for _ in words),), own=False, noise=noise)
    count, told = rng.choice(OWN_COLUMNS), rng.choice((0.0, 0.5, 1.0))
    columns = [[weight() if rng.random() < told else 0.0 for _ in words] for _ in range(count)]
    for index in range(len(words)):
        if not any(column[index] for column in columns):
            rng.choice(columns)[index] = weight()
    return Overlay(tuple(words), tuple(map(tuple, columns)), own=True, noise=noise)


@dataclass(frozen=True)
class OverlayBatch:
    """The overlays of a batch.

    Attributes:
        words_BW: token ids.
        weights_BLW: how much of a word is added at a column.
        noise_BLD: noise on the sums, the same at every column of a document without columns of its own.
        own_B: documents with columns of their own; those are filled before the first layer.
        start_layer: before which the other documents' sums are added.
        part: share of the sum that this layer and each later one gets; None: this layer gets it all.
    """

    words_BW: Tensor
    weights_BLW: Tensor
    noise_BLD: Tensor
    own_B: Tensor
    start_layer: int
    part: float | None

    def values(self, model: LlamaForCausalLM) -> Tensor:
        """What is added, `B×L×D`."""
        return self.weights_BLW @ model.model.embed_tokens(self.words_BW) + self.noise_BLD


def collate_overlays(
    overlays: Sequence[Overlay | None],
    length: int,
    pad: int,
    start_layer: int,
    hidden_size: int,
    *,
    part: float | None = None,
    generator: torch.Generator | None = None,
) -> OverlayBatch | None:
    """The overlays of a batch of documents; None if no document has one.

    Args:
        overlays: one a document.
        length: columns.
        pad: token id where there is no word.
        start_layer: see `OverlayBatch`.
        hidden_size: D.
        part: see `OverlayBatch`.
        generator: of the noise.
    """
    if not any(overlays):
        return None
    width = max(len(overlay.words) for overlay in overlays if overlay)
    words_BW = torch.full((len(overlays), width), pad)
    weights_BLW = torch.zeros(len(overlays), length, width)
    noise_BLD = torch.zeros(len(overlays), length, hidden_size)
    for row, overlay in enumerate(overlays):
        if overlay is None:
            continue
        count = len(overlay.words)
        words_BW[row, :count] = torch.tensor(overlay.words)
        shares = torch.tensor(overlay.shares)
        columns = slice(1, 1 + len(shares)) if overlay.own else slice(0, length)
        weights_BLW[row, columns, :count] = shares
        noise_BLD[row, columns] = overlay.noise * torch.randn(len(shares), hidden_size, generator=generator)
    own_B = torch.tensor([overlay is not None and overlay.own for overlay in overlays])
    return OverlayBatch(words_BW, weights_BLW, noise_BLD, own_B, start_layer, part)


def run_alone(model: LlamaForCausalLM, sums_B1D: Tensor, layers: int) -> Tensor:
    """What the first `layers` layers make of a document whose only column holds the sum; zero rows stay zero."""
    hidden_B1D = sums_B1D
    if layers:
        positions = torch.zeros(1, 1, dtype=torch.long)
        rotary = model.model.rotary_emb(sums_B1D, position_ids=positions)
        for layer in model.model.layers[:layers]:
            hidden_B1D = layer.forward(hidden_B1D, position_ids=positions, position_embeddings=rotary)
    return hidden_B1D


@contextmanager
def overlaid(model: LlamaForCausalLM, batch: OverlayBatch | None) -> Iterator[None]:
    """While open, the batch's sums are added to the hidden states before its start layer."""
    if batch is None:
        yield
        return
    values_BLD = batch.values(model)
    own_B11 = batch.own_B[:, None, None]
    # The sum is the same in every column of such a document.
    heard_B1D = run_alone(model, values_BLD[:, :1] * ~own_B11, batch.start_layer)

    def add(sums_BLD: Tensor) -> Callable[[Any, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        return lambda layer, args: (args[0] + sums_BLD[:, : args[0].shape[1]], *args[1:])

    layers = model.model.layers
    handles = [layers[0].register_forward_pre_hook(add(values_BLD * own_B11))]
    if batch.part is None:
        handles.append(layers[batch.start_layer].register_forward_pre_hook(add(heard_B1D)))
    else:
        part = add(batch.part * heard_B1D)
        handles += [layer.register_forward_pre_hook(part) for layer in layers[batch.start_layer :]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
