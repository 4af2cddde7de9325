"""Tokens inserted into the text: for methods that hand the language model more than the text's own tokens.

Every row of the result is right-aligned, whichever side the batch was padded on: unused columns come first, then
BOS, the inserted tokens and the text without a gap. So each label stands right behind the column it is predicted
from, and the last column is the last token, which is what decoding continues from.

Shape suffixes as in `methods.base`; S inserted tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import IGNORE_INDEX, Batch, InputSequence, causal_mask, positions_from_mask


def insert_after_bos(
    embed_tokens: nn.Module,
    batch: Batch,
    inserted_BSD: Tensor,
    inserted_mask_BS: Tensor,
    max_length: int | None = None,
) -> InputSequence:
    """`BOS, inserted tokens, text` for each sample.

    Args:
        embed_tokens: the language model's input embedding.
        batch: text; the first real token of a sample is taken for its BOS.
        inserted_BSD: embeddings to insert, the same number of columns for every sample.
        inserted_mask_BS: which of them a sample has; the others become unused columns.
        max_length: real columns kept of a sample, the rest is cut from its end; None keeps all.

    Returns:
        A sequence of `L + S` columns (at most `max_length`). BOS and inserted columns carry no label.
    """
    mask_BL = batch.attention_mask_BL.bool()
    columns_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    is_bos_BL = (columns_L == mask_BL.int().argmax(dim=1, keepdim=True)) & mask_BL
    text_BLD = embed_tokens(batch.input_ids_BL)
    bos_B1D = (text_BLD * is_bos_BL[..., None].to(text_BLD.dtype)).sum(dim=1, keepdim=True)
    embeds_BTD = torch.cat([bos_B1D, inserted_BSD.to(text_BLD.dtype), text_BLD], dim=1)
    valid_BT = torch.cat([mask_BL.any(dim=1, keepdim=True), inserted_mask_BS, mask_BL & ~is_bos_BL], dim=1)
    labels_BT = None
    if batch.labels_BL is not None:
        labels_BL = batch.labels_BL.masked_fill(is_bos_BL, IGNORE_INDEX)
        labels_BT = F.pad(labels_BL, (1 + inserted_BSD.shape[1], 0), value=IGNORE_INDEX)
    if max_length is not None:
        valid_BT = valid_BT & (positions_from_mask(valid_BT) < max_length)
    # The text's own BOS column is empty now in every row, so at least one column can go.
    kept = min(valid_BT.shape[1] - 1, max_length or valid_BT.shape[1])
    order_BT = valid_BT.int().argsort(dim=1, stable=True)[:, -kept:]
    valid_BT = valid_BT.gather(1, order_BT)
    if labels_BT is not None:
        labels_BT = labels_BT.gather(1, order_BT).masked_fill(~valid_BT, IGNORE_INDEX)
    return InputSequence(
        inputs_embeds_BTD=embeds_BTD.gather(1, order_BT[..., None].expand(-1, -1, embeds_BTD.shape[2])),
        attention_mask=valid_BT,
        key_mask_BT=valid_BT,
        position_ids_BT=positions_from_mask(valid_BT),
        labels_BT=labels_BT,
    )


def prepend_hidden_token(sequence: InputSequence, token_B1D: Tensor) -> InputSequence:
    """Put a token in front, in column 0, that attends to itself and that no other column may attend to.

    Args:
        sequence: with a `B×T` mask.
        token_B1D: the token's embedding; it takes rotary position 0 and moves the others up by one.

    Returns:
        A sequence of `T + 1` columns with a `B×1×(T+1)×(T+1)` mask.
    """
    valid_BT = F.pad(sequence.key_mask_BT, (1, 0), value=True)
    visible_BT = F.pad(sequence.key_mask_BT, (1, 0), value=False)
    embeds_BTD, labels_BT = sequence.inputs_embeds_BTD, sequence.labels_BT
    return InputSequence(
        inputs_embeds_BTD=torch.cat([token_B1D.to(embeds_BTD.dtype), embeds_BTD], dim=1),
        attention_mask=causal_mask(visible_BT),
        key_mask_BT=visible_BT,
        position_ids_BT=positions_from_mask(valid_BT),
        labels_BT=None if labels_BT is None else F.pad(labels_BT, (1, 0), value=IGNORE_INDEX),
    )
