"""Insertion of tokens into the text, compared with lists that are put together sample by sample."""

from dataclasses import replace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.base import IGNORE_INDEX, Batch, InputSequence
from methods.sequence import insert_after_bos, prepend_hidden_token

WIDTH = 3


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    """Draw samples of any length, and which of the tokens are inserted into each."""
    count = draw(st.integers(0, 4))
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    return {
        "count": count,
        "lengths": lengths,
        "used": [draw(st.lists(st.booleans(), min_size=count, max_size=count)) for _ in lengths],
        "left": draw(st.booleans()),
        "max_length": draw(st.one_of(st.none(), st.integers(1, 12))),
    }


def inputs(case: dict[str, Any]) -> tuple[nn.Embedding, Batch, Tensor, Tensor]:
    """Return an embedding, a batch, the tokens to insert, and which of them each sample has."""
    torch.manual_seed(0)
    length = max(case["lengths"])
    ids, mask = torch.zeros(len(case["lengths"]), length, dtype=torch.long), torch.zeros(len(case["lengths"]), length)
    for row, real in enumerate(case["lengths"]):
        start = length - real if case["left"] else 0
        ids[row, start : start + real] = torch.randint(1, 50, (real,))
        mask[row, start : start + real] = 1
    labels = ids.masked_fill(mask == 0, IGNORE_INDEX)
    images, flags = torch.zeros(len(ids), 3, 1, 1), torch.ones(len(ids), dtype=torch.bool)
    used = torch.tensor(case["used"], dtype=torch.bool).view(len(ids), case["count"])
    return nn.Embedding(50, WIDTH), Batch(ids, mask, labels, images, flags), torch.randn(*used.shape, WIDTH), used


def labels_at(sequence: InputSequence, batch: Batch) -> Tensor:
    """The labels that a loss is computed on, `B×T`, each at the column of its token."""
    assert batch.labels_BL is not None
    labels_BT = torch.full_like(sequence.key_mask_BT, IGNORE_INDEX, dtype=torch.long)
    for index in batch.facts.label_rows_Q.tolist():
        row, token = divmod(index, batch.labels_BL.shape[1])
        if (column := int(sequence.columns_BL[row, token])) >= 0:
            labels_BT[row, column] = batch.labels_BL[row, token]
    return labels_BT


def expected(embed: nn.Module, batch: Batch, inserted: Tensor, used: Tensor, row: int, limit: int | None) -> Any:
    """Return the embeddings and labels of the real columns of one sample."""
    assert batch.labels_BL is not None
    ids = batch.input_ids_BL[row][batch.attention_mask_BL[row].bool()]
    text = embed(ids)
    between = inserted[row][used[row]]
    labels = [IGNORE_INDEX] * (1 + len(between)) + ids[1:].tolist()
    return torch.cat([text[:1], between, text[1:]])[:limit], labels[:limit]


@settings(max_examples=60)
@given(cases())
def test_rows_are_bos_then_inserted_tokens_then_text(case: dict[str, Any]) -> None:
    embed, batch, inserted, used = inputs(case)
    found = insert_after_bos(embed, batch, inserted, used, case["max_length"])
    labels_BT = labels_at(found, batch)
    columns = batch.input_ids_BL.shape[1] + case["count"]
    assert found.key_mask_BT.shape[1] == min(columns, case["max_length"] or columns)
    for row in range(len(case["lengths"])):
        embeds, labels = expected(embed, batch, inserted, used, row, case["max_length"])
        real = found.key_mask_BT[row]
        # Right-aligned and without a gap.
        assert real.tolist() == [False] * (len(real) - len(embeds)) + [True] * len(embeds)
        torch.testing.assert_close(found.inputs_embeds_BTD[row, real], embeds)
        assert labels_BT[row, real].tolist() == labels
        assert (labels_BT[row, ~real] == IGNORE_INDEX).all()
        assert found.position_ids_BT[row, real].tolist() == list(range(len(embeds)))
    assert torch.equal(found.attention_mask, found.key_mask_BT)


@settings(max_examples=30)
@given(cases())
def test_a_prepended_token_is_seen_by_itself_alone(case: dict[str, Any]) -> None:
    embed, batch, inserted, used = inputs(case)
    before = insert_after_bos(embed, batch, inserted, used)
    token = torch.randn(len(case["lengths"]), 1, WIDTH)
    after = prepend_hidden_token(before, token)
    assert torch.equal(after.inputs_embeds_BTD, torch.cat([token, before.inputs_embeds_BTD], dim=1))
    assert torch.equal(labels_at(after, batch)[:, 1:], labels_at(before, batch))
    assert (labels_at(after, batch)[:, 0] == IGNORE_INDEX).all()
    _check_mask(before, after)


def _check_mask(before: InputSequence, after: InputSequence) -> None:
    """Check masks and positions after a hidden token was put in front."""
    batch, length = before.key_mask_BT.shape
    assert after.attention_mask.shape == (batch, 1, length + 1, length + 1)
    assert not after.key_mask_BT[:, 0].any()
    assert torch.equal(after.key_mask_BT[:, 1:], before.key_mask_BT)
    for row in range(batch):
        real = before.key_mask_BT[row].tolist()
        for query in range(length + 1):
            seen = set(after.attention_mask[row, 0, query].nonzero().flatten().tolist())
            causal = {key + 1 for key in range(length) if real[key] and key + 1 <= query}
            assert seen - {query} == causal - {query} and query in seen
        positions = after.position_ids_BT[row]
        assert positions[0] == 0
        assert positions[1:][before.key_mask_BT[row]].tolist() == list(range(1, sum(real) + 1))


def test_nothing_to_learn_has_no_labels() -> None:
    embed, batch, inserted, used = inputs({"count": 1, "lengths": [2, 3], "used": [[True], [False]], "left": True})
    batch = replace(batch, labels_BL=None)
    assert not len(batch.facts.label_rows_Q)
    assert insert_after_bos(embed, batch, inserted, used).columns_BL.shape == batch.input_ids_BL.shape
