"""Overlays: words given to the language model as weighted sums of embeddings instead of as tokens of the text.

A large language model can read more from one position than one word of its vocabulary. A small one that was trained on
the embeddings of single words cannot. Methods that add visual features to hidden states, or that insert them as extra
positions, would then have no effect. So the tiny language model is also trained on documents in which the words of the
scene are not in the text. The embeddings of these words are multiplied by random weights, added up, and given to the
model in one of two ways, each in half of the cases:

- In one to eight extra positions of their own after BOS, each word in a random part of these positions.
- At every position, before one of the first layers, or in parts before that layer and each later one.

No picture and no method of the benchmark is involved. Legend: B documents, L tokens, W words, D hidden width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

OWN_POSITIONS = (1, 2, 4, 8)
"""How many extra positions an overlay may have."""
REPEATED = (0.12, 0.4)
"""Lowest and highest share of the sum that each layer gets where the sum is added in parts."""
WEIGHTS = (0.6, 1.5)
"""Lowest and highest weight of a word in the sum."""
FAINTEST = 0.05
"""Lowest factor by which all weights of a faint overlay are multiplied."""
MAX_NOISE = 0.08
"""Highest standard deviation of the noise on each coordinate of a sum; that of an embedding's coordinates is 0.09."""


@dataclass(frozen=True)
class Overlay:
    """The words that one document is given in addition to its text.

    Attributes:
        words: token ids of the words.
        shares: one row of weights, one weight per word, for each extra position; a single row for an overlay at every
            position.
        own: whether the overlay has extra positions after BOS; otherwise it is added at every position.
        noise: standard deviation of the noise on each coordinate of a row's sum.
    """

    words: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]
    own: bool
    noise: float = 0.0


def word_ids(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> list[int]:
    """Return the token ids of words of the small world with a leading space, as they appear after another word."""
    return [tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in words]


def draw_overlay(rng: Random, words: Sequence[int], own: bool | None = None, *, faint: bool = False) -> Overlay:
    """Draw the overlay of a document.

    Args:
        rng: draws the weights and everything that is not given.
        words: token ids of the words.
        own: give the overlay extra positions of its own, or add it at every position; None draws one of the two.
        faint: add noise, and scale down the weights of half of the overlays. Faint features should change the answer a
            little, because a method that starts from random features learns from such small changes.
    """
    noise = MAX_NOISE * rng.random() if faint else 0.0
    strength: float = FAINTEST ** rng.random() if faint and rng.random() < 0.5 else 1.0

    def weight() -> float:
        low, high = WEIGHTS
        drawn: float = strength * low * (high / low) ** rng.random()
        return drawn

    if rng.random() < 0.5 if own is None else not own:
        return Overlay(tuple(words), (tuple(weight() for _ in words),), own=False, noise=noise)
    count, density = rng.choice(OWN_POSITIONS), rng.choice((0.0, 0.5, 1.0))
    rows = [[weight() if rng.random() < density else 0.0 for _ in words] for _ in range(count)]
    for index in range(len(words)):
        if not any(row[index] for row in rows):
            rng.choice(rows)[index] = weight()
    return Overlay(tuple(words), tuple(map(tuple, rows)), own=True, noise=noise)


@dataclass(frozen=True)
class OverlayBatch:
    """The overlays of a batch.

    Attributes:
        words_BW: token ids of the words, padded.
        weights_BLW: weight of each word at each position.
        noise_BLD: noise on the sums; the same at every position of a document whose overlay has no extra positions.
        own_B: whether the overlay has extra positions; these are filled before the first layer.
        start_layer: the layer before which the sums of the other documents are added.
        part: share of the sum that the start layer and each later layer get; None adds the whole sum before the start
            layer.
    """

    words_BW: Tensor
    weights_BLW: Tensor
    noise_BLD: Tensor
    own_B: Tensor
    start_layer: int
    part: float | None

    def values(self, model: LlamaForCausalLM) -> Tensor:
        """Return what is added at each position, `B×L×D`."""
        embeddings_BWD: Tensor = model.model.embed_tokens(self.words_BW)
        return self.weights_BLW @ embeddings_BWD + self.noise_BLD


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
    """Combine the overlays of a batch of documents.

    Args:
        overlays: one per document; None for a document without an overlay.
        length: number of positions L.
        pad: token id that pads the words.
        start_layer: see `OverlayBatch`.
        hidden_size: hidden width D.
        part: see `OverlayBatch`.
        generator: draws the noise; None uses torch's global generator.

    Returns:
        the batch, or None if no document has an overlay.
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
        positions = slice(1, 1 + len(shares)) if overlay.own else slice(0, length)
        weights_BLW[row, positions, :count] = shares
        noise_BLD[row, positions] = overlay.noise * torch.randn(len(shares), hidden_size, generator=generator)
    own_B = torch.tensor([overlay is not None and overlay.own for overlay in overlays])
    return OverlayBatch(words_BW, weights_BLW, noise_BLD, own_B, start_layer, part)


def run_alone(model: LlamaForCausalLM, sums_B1D: Tensor, layers: int) -> Tensor:
    """Pass each sum through the first layers as if it were a document of one position.

    Args:
        model: the language model.
        sums_B1D: one sum per document; zeros stay zeros.
        layers: number of layers.

    Returns:
        the hidden states after these layers, `B×1×D`.
    """
    hidden_B1D = sums_B1D
    if layers:
        positions = torch.zeros(1, 1, dtype=torch.long)
        rotary = model.model.rotary_emb(sums_B1D, position_ids=positions)
        for layer in model.model.layers[:layers]:
            hidden_B1D = layer.forward(hidden_B1D, position_ids=positions, position_embeddings=rotary)
    return hidden_B1D


@contextmanager
def overlaid(model: LlamaForCausalLM, batch: OverlayBatch | None) -> Iterator[None]:
    """Add the overlays of a batch to the hidden states of the model while the context is open.

    Args:
        model: the language model; forward hooks are registered and removed again.
        batch: the overlays; None adds nothing.
    """
    if batch is None:
        yield
        return
    values_BLD = batch.values(model)
    own_B11 = batch.own_B[:, None, None]
    # A document without extra positions has the same sum at every position, so only the first is computed.
    repeated_B1D = run_alone(model, values_BLD[:, :1] * ~own_B11, batch.start_layer)

    def add(sums_BLD: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        return lambda layer, args: (args[0] + sums_BLD[:, : args[0].shape[1]], *args[1:])

    layers = model.model.layers
    handles = [layers[0].register_forward_pre_hook(add(values_BLD * own_B11))]
    if batch.part is None:
        handles.append(layers[batch.start_layer].register_forward_pre_hook(add(repeated_B1D)))
    else:
        part = add(batch.part * repeated_B1D)
        handles += [layer.register_forward_pre_hook(part) for layer in layers[batch.start_layer :]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
