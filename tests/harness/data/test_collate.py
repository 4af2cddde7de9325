"""Batches: padding, labels, images."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor, ImageStore
from harness.data.prompts import IGNORED

PREPROCESSOR = ImagePreprocessor(4)


class Words:
    """A tokenizer whose tokens are numbers between blanks."""

    bos_token_id = 1
    eos_token_id = 2

    def encode(self, text: str, *, add_special_tokens: bool = True, **kwargs: Any) -> list[int]:
        return [int(word) for word in text.split()]


def text(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))


numbers = st.lists(st.integers(3, 99), min_size=1, max_size=8)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4), st.sampled_from(["left", "right"]))
def test_each_row_is_the_sample_and_padding(samples, side):
    examples = [Example(str(i), text(p), " " + text(a)) for i, (p, a) in enumerate(samples)]
    batch = Collator(Words(), PREPROCESSOR, 64, side)(examples)
    for i, (prompt, answer) in enumerate(samples):
        ids, mask, labels = (batch[k][i] for k in ("input_ids_BL", "attention_mask_BL", "labels_BL"))
        assert ids[mask].tolist() == [1, *prompt, *answer, 2]
        assert labels[mask].tolist() == [IGNORED] * (1 + len(prompt)) + [*answer, 2]
        assert (ids[~mask] == 0).all() and (labels[~mask] == IGNORED).all()
        edge = mask[-1] if side == "left" else mask[0]
        assert edge and (mask.diff() != 0).sum() <= 1
    assert batch["input_ids_BL"].shape[1] == max(len(p) + len(a) + 2 for p, a in samples)


def test_prompts_alone_have_no_labels_and_cuts_are_counted():
    collate = Collator(Words(), PREPROCESSOR, 4, "left")
    batch = collate([Example("a", "3 4 5 6 7"), Example("b", "3")])
    assert batch["labels_BL"] is None
    assert batch["input_ids_BL"].tolist() == [[1, 5, 6, 7], [0, 0, 1, 3]]
    assert collate.truncated == 1
    collate([Example("a", "3 4 5 6 7"), Example("c", "3 4 5 6")])
    assert (collate.truncated, collate.cut) == (2, {"a", "c"})  # the next epoch's "a" is no other example


def test_images_and_flags(tmp_path):
    path = tmp_path / "image.png"
    Image.new("RGB", (9, 7), (255, 0, 0)).save(path)
    store = ImageStore(PREPROCESSOR)
    collate = Collator(Words(), PREPROCESSOR, 8, store=store)
    batch = collate([Example("a", "3", " 4", path), Example("b", "3", " 4")])
    assert batch["has_image_B"].tolist() == [True, False]
    assert batch["images_BCHW"].shape == (2, 3, 4, 4) and batch["images_BCHW"].dtype == torch.float32
    torch.testing.assert_close(batch["images_BCHW"][0], PREPROCESSOR(Image.open(path)))
    assert (batch["images_BCHW"][1] == 0).all()
    assert len(store) == 1


def test_mixed_batch_is_our_own_mistake():
    with pytest.raises(AssertionError):
        Collator(Words(), PREPROCESSOR, 8)([Example("a", "3", " 4"), Example("b", "3")])
