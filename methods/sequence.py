"""What the language model reads for a batch: the tokens of its text, alone or with tokens inserted among them.

`insert_after_bos` right-aligns every row of its result, whichever side the batch was padded on: unused columns come
first, then BOS, the inserted tokens and the text, without a gap. So each label follows directly after the column that
predicts it, and the last column is the last token, from which decoding continues.

Shape suffixes as in `methods.base`; S inserted tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.batch import Batch, first_token


@dataclass(frozen=True)
class InputSequence:
    """What the language model reads for one batch, with visual tokens inserted.

    Attributes:
        inputs_embeds_BTD: input embeddings.
        attention_mask: which columns may be attended to. None means that attention is causal and that unused columns,
            if there are any, come after those in use, which therefore never see them. `B×T` is true where a column is
            in use, and attention is causal. `B×1×T×T` is for a method that needs another pattern; it is true where the
            row may attend to the column.
        key_mask_BT: true for the columns that later tokens may attend to.
        position_ids_BT: rotary positions.
        columns_BL: the column of each text token; -1 for padding and for a token that was cut off. The column before
            a token's column predicts the token.
    """

    inputs_embeds_BTD: Tensor
    attention_mask: Tensor | None
    key_mask_BT: Tensor
    position_ids_BT: Tensor
    columns_BL: Tensor


def plain_sequence(embed_tokens: nn.Module, batch: Batch) -> InputSequence:
    """Return the sequence of a method that inserts nothing: the embedded text, its padding mask and its positions.

    Args:
        embed_tokens: the language model's input embedding.
        batch: the text.
    """
    mask_BL = batch.attention_mask_BL.bool()
    columns_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    return InputSequence(
        inputs_embeds_BTD=embed_tokens(batch.input_ids_BL),
        attention_mask=None if batch.facts.padding in ("none", "right") else mask_BL,
        key_mask_BT=mask_BL,
        position_ids_BT=positions_from_mask(mask_BL),
        columns_BL=columns_L.where(mask_BL, -1),
    )


def insert_after_bos(
    embed_tokens: nn.Module,
    batch: Batch,
    inserted_BSD: Tensor,
    inserted_mask_BS: Tensor,
    max_length: int | None = None,
    *,
    all_inserted: bool = False,
) -> InputSequence:
    """Build `BOS, inserted tokens, text` for each sample.

    Args:
        embed_tokens: the language model's input embedding.
        batch: the text; the first real token of a sample counts as its BOS.
        inserted_BSD: embeddings to insert, the same number of columns for every sample.
        inserted_mask_BS: true for the tokens that a sample has; the others become unused columns.
        max_length: how many columns a sample keeps; the rest is cut off its end. None keeps all.
        all_inserted: whether every sample has every inserted token. The caller knows this; reading it from the mask
            would synchronise with the device.

    Returns:
        A sequence of `L + S` columns, at most `max_length`.
    """
    mask_BL = batch.attention_mask_BL.bool()
    is_bos_BL = first_token(mask_BL)
    text_BLD = embed_tokens(batch.input_ids_BL)
    # On a GPU, autocast gives a sum without a dtype in float32, and the whole sequence would then be in float32.
    is_bos_BL1 = is_bos_BL[..., None].to(text_BLD.dtype)
    bos_B1D = (text_BLD * is_bos_BL1).sum(dim=1, keepdim=True, dtype=text_BLD.dtype)
    embeds_BTD = torch.cat([bos_B1D, inserted_BSD.to(text_BLD.dtype), text_BLD], dim=1)
    valid_BT = torch.cat([mask_BL.any(dim=1, keepdim=True), inserted_mask_BS, mask_BL & ~is_bos_BL], dim=1)
    if max_length is not None:
        valid_BT = valid_BT & (positions_from_mask(valid_BT) < max_length)
    # BOS has moved to the front, so its old column is unused in every row, and one column can always be dropped.
    width = valid_BT.shape[1]
    kept = min(width - 1, max_length or width)
    order_BT = valid_BT.int().argsort(dim=1, stable=True)
    # `order_BT` says which token each column shows; its inverse says which column shows each token.
    columns_BT = (order_BT.argsort(dim=1) - (width - kept)).where(valid_BT, -1)
    bos_columns_B1, text_columns_BL = columns_BT[:, :1], columns_BT[:, 1 + inserted_BSD.shape[1] :]
    order_BT = order_BT[:, -kept:]
    mask_BT = valid_BT.gather(1, order_BT)
    return InputSequence(
        inputs_embeds_BTD=embeds_BTD.gather(1, order_BT[..., None].expand(-1, -1, embeds_BTD.shape[2])),
        attention_mask=None if all_inserted and batch.facts.padding == "none" else mask_BT,
        key_mask_BT=mask_BT,
        position_ids_BT=positions_from_mask(mask_BT),
        columns_BL=text_columns_BL.where(~is_bos_BL, bos_columns_B1),
    )


def prepend_hidden_token(sequence: InputSequence, token_B1D: Tensor) -> InputSequence:
    """Put a token into column 0 that attends to itself alone and that no other column may attend to.

    Args:
        sequence: the sequence to extend; its attention is causal over the columns in use.
        token_B1D: the token's embedding. It takes rotary position 0 and moves the other positions up by one.

    Returns:
        A sequence of `T + 1` columns with a `B×1×(T+1)×(T+1)` mask.
    """
    valid_BT = F.pad(sequence.key_mask_BT, (1, 0), value=True)
    visible_BT = F.pad(sequence.key_mask_BT, (1, 0), value=False)
    embeds_BTD = sequence.inputs_embeds_BTD
    return InputSequence(
        inputs_embeds_BTD=torch.cat([token_B1D.to(embeds_BTD.dtype), embeds_BTD], dim=1),
        attention_mask=causal_mask(visible_BT, itself=True),
        key_mask_BT=visible_BT,
        position_ids_BT=positions_from_mask(valid_BT),
        columns_BL=(sequence.columns_BL + 1).where(sequence.columns_BL >= 0, -1),
    )


def positions_from_mask(mask_BT: Tensor) -> Tensor:
    """Return rotary positions, `B×T`. They count real columns only, so that padding never shifts a token."""
    return (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)


def causal_mask(visible_BT: Tensor, *, itself: bool = False) -> Tensor:
    """Return a mask `B×1×T×T` that is true where the row may attend to the column.

    A row may attend to a visible column that is not later than the row.

    Args:
        visible_BT: true for the columns that may be attended to.
        itself: whether every column also attends to itself, visible or not.
    """
    index_T = torch.arange(visible_BT.shape[1], device=visible_BT.device)
    allowed_BTT = visible_BT[:, None] & (index_T[:, None] >= index_T)
    return (allowed_BTT | (index_T[:, None] == index_T) if itself else allowed_BTT)[:, None]
