"""The columns whose final hidden states are read: those that predict a labelled token, or the last one.

Every other column matters only through the keys and values of the last decoder layer. That layer therefore computes its
queries, its output and its FFN at the selected columns alone, if it can (`methods.tuned.run_decoder`).

Shape suffixes as in `methods.base`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from methods.base import InputSequence


class Selection(NamedTuple):
    """The columns of a sequence that are read.

    Attributes:
        columns_BR: the columns. A sample may name a column more than once.
        mask: `B×1×R×T`, or `B×1×1×T`: true where the selected column may attend to the column; None if it may attend
            to all of them.
    """

    columns_BR: Tensor
    mask: Tensor | None


def take(x_BTD: Tensor, columns_BR: Tensor) -> Tensor:
    """Return the selected columns of `x_BTD`, `B×R×D`."""
    samples, length, width = x_BTD.shape
    first_B1 = torch.arange(samples, device=columns_BR.device)[:, None] * length
    # The backward pass of `index_select` adds rows, which is faster than that of indexing with a tensor.
    return x_BTD.flatten(0, 1).index_select(0, (columns_BR + first_B1).flatten()).view(samples, -1, width)


def predicting_columns(sequence: InputSequence, label_columns_BR: Tensor) -> Selection:
    """Return the column before each labelled token, which predicts it.

    Args:
        sequence: the sequence that the language model reads.
        label_columns_BR: the labelled tokens, as in `BatchFacts`. For padding, and for a token that has no column
            because the method cut it off, any column is selected.
    """
    columns_BR = (sequence.columns_BL.gather(1, label_columns_BR.clamp(min=0)) - 1).clamp(min=0)
    mask, length = sequence.attention_mask, sequence.inputs_embeds_BTD.shape[1]
    if mask is not None and mask.ndim == 4:
        return Selection(columns_BR, take(mask[:, 0], columns_BR)[:, None])
    allowed_BRT = columns_BR[..., None] >= torch.arange(length, device=columns_BR.device)
    return Selection(columns_BR, (allowed_BRT if mask is None else allowed_BRT & mask[:, None])[:, None])


def last_column(sequence: InputSequence) -> Selection:
    """Return the last column, from which decoding continues; every sample must end there."""
    mask, embeds_BTD = sequence.attention_mask, sequence.inputs_embeds_BTD
    samples, length, _ = embeds_BTD.shape
    columns_B1 = torch.full((samples, 1), length - 1, device=embeds_BTD.device)
    if mask is not None:
        mask = mask[:, :, -1:] if mask.ndim == 4 else mask[:, None, None]
    return Selection(columns_B1, mask)
