"""Batches: padding, labels and images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.prompts import IGNORED
from tests.harness.data.number_tokenizer import NumberTokenizer

PREPROCESSOR = ImagePreprocessor(4)


def text(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))


numbers = st.lists(st.integers(3, 99), min_size=1, max_size=8)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4), st.sampled_from(["left", "right"]))
def test_each_row_is_the_sample_and_padding(samples, side):
    examples = [Example(str(i), text(p), " " + text(a)) for i, (p, a) in enumerate(samples)]
    batch = Collator(NumberTokenizer(), PREPROCESSOR, 64, side)(examples)
    for i, (prompt, answer) in enumerate(samples):
        ids, mask, labels = (batch[k][i] for k in ("input_ids_BL", "attention_mask_BL", "labels_BL"))
        assert ids[mask].tolist() == [1, *prompt, *answer, 2]
        assert labels[mask].tolist() == [IGNORED] * (1 + len(prompt)) + [*answer, 2]
        assert (ids[~mask] == 0).all() and (labels[~mask] == IGNORED).all()
        edge = mask[-1] if side == "left" else mask[0]
        assert edge and (mask.diff() != 0).sum() <= 1
    assert batch["input_ids_BL"].shape[1] == max(len(p) + len(a) + 2 for p, a in samples)


def test_prompts_alone_have_no_labels():
    batch = Collator(NumberTokenizer(), PREPROCESSOR, 4, "left")([Example("a", "3 4 5 6 7"), Example("b", "3")])
    assert batch["labels_BL"] is None
    assert batch["input_ids_BL"].tolist() == [[1, 5, 6, 7], [0, 0, 1, 3]]


def test_an_example_that_is_cut_again_counts_once():
    collate = Collator(NumberTokenizer(), PREPROCESSOR, 4, "left")
    collate([Example("a", "3 4 5 6 7"), Example("b", "3")])
    assert collate.truncated == 1
    collate([Example("a", "3 4 5 6 7"), Example("c", "3 4 5 6")])
    assert (collate.truncated, collate.cut) == (2, {"a", "c"})


def test_a_training_text_is_tokenised_once_while_there_is_room(monkeypatch):
    monkeypatch.setattr("harness.data.collate.KEPT_TOKENS", 8)
    read = []
    encode = NumberTokenizer.encode

    def noting(self, text, **options):
        read.append(text)
        return encode(self, text, **options)

    monkeypatch.setattr(NumberTokenizer, "encode", noting)
    collate = Collator(NumberTokenizer(), PREPROCESSOR, 64)
    examples = [Example("a", "3 4", " 5"), Example("b", "6 7", " 8"), Example("a", "9", " 9")]
    first, second = collate(examples), collate(examples)
    assert all(torch.equal(first[key], second[key]) for key in first)
    # The first text has five tokens with BOS and EOS, so there is no room for the second, and none for the third.
    assert [text.split()[0] for text in read] == ["3", "3", "6", "6", "9", "9", "6", "6", "9", "9"]


@pytest.fixture
def red_image(tmp_path):
    """The file of a small red image."""
    path = tmp_path / "image.png"
    Image.new("RGB", (9, 7), (255, 0, 0)).save(path)
    return path


def test_a_sample_without_an_image_has_zeros_and_no_flag(red_image):
    batch = Collator(NumberTokenizer(), PREPROCESSOR, 8)([Example("a", "3", " 4", red_image), Example("b", "3", " 4")])
    assert batch["has_image_B"].tolist() == [True, False]
    assert batch["images_BCHW"].shape == (2, 3, 4, 4) and batch["images_BCHW"].dtype == torch.float32
    torch.testing.assert_close(batch["images_BCHW"][0], PREPROCESSOR(Image.open(red_image)))
    assert (batch["images_BCHW"][1] == 0).all()


def test_collators_share_the_images_that_were_decoded(red_image):
    preprocessor = ImagePreprocessor(4)
    first = Collator(NumberTokenizer(), preprocessor, 8)([Example("a", "3", " 4", red_image)])
    red_image.unlink()
    again = Collator(NumberTokenizer(), preprocessor, 8)([Example("a", "3", " 4", red_image)])
    assert len(preprocessor.store) == 1 and torch.equal(first["images_BCHW"], again["images_BCHW"])


def test_a_batch_may_not_mix_examples_with_and_without_answers():
    with pytest.raises(AssertionError):
        Collator(NumberTokenizer(), PREPROCESSOR, 8)([Example("a", "3", " 4"), Example("b", "3")])
