"""Turn examples into the padded tensors of a batch.

Shapes: B batch, N samples with an image, L tokens after padding, C = 3 channels, H = W = image size in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import torch
from torch import Tensor

from harness.data.images import ImagePreprocessor, outlives_epoch
from harness.data.prompts import IGNORED, TokenizedExample, Tokenizer, tokenize_example, tokenize_prompt

KEPT_TOKENS = 2**21
"""How many tokens of training texts a collator keeps, because every epoch reads them again. They take about 100 MB."""


@dataclass(frozen=True, slots=True)
class Example:
    """One sample as text with an optional image; `answer` is None if the model has to answer the prompt itself."""

    id: str
    prompt: str
    answer: str | None = None
    image: Path | None = None


class CollatedBatch(TypedDict):
    """The tensors of a batch, under the names that `methods.base.Batch` takes.

    Attributes:
        input_ids_BL: token ids, int64; padding has id 0.
        attention_mask_BL: bool, true where a token is not padding.
        labels_BL: int64, -100 where there is no loss; None when the examples have no answers.
        images_BCHW: normalised pixels, float32; zeros for a sample without an image.
        has_image_B: bool, whether the sample has an image.
    """

    input_ids_BL: Tensor
    attention_mask_BL: Tensor
    labels_BL: Tensor | None
    images_BCHW: Tensor
    has_image_B: Tensor


class Collator:
    """Tokenise, pad and stack examples.

    Args:
        tokenizer: a Hugging Face tokenizer with BOS and EOS.
        preprocessor: image size and statistics; its store keeps the decoded images.
        max_length: maximum number of tokens per sample, BOS and EOS included.
        padding_side: "right" for training, "left" for decoding.

    Attributes:
        cut: ids of the examples that were longer than `max_length`; an example that is seen again counts once.
            `harness.data.loading` adds those that worker processes found.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        preprocessor: ImagePreprocessor,
        max_length: int,
        padding_side: Literal["left", "right"] = "right",
    ) -> None:
        self.tokenizer = tokenizer
        self.preprocessor = preprocessor
        self.max_length = max_length
        self.padding_side = padding_side
        self.store = preprocessor.store
        self.cut: set[str] = set()
        self._tokens: dict[Example, TokenizedExample] = {}
        self._room = KEPT_TOKENS

    @property
    def truncated(self) -> int:
        """The number of different examples that were cut so far."""
        return len(self.cut)

    def __call__(self, examples: Sequence[Example]) -> CollatedBatch:
        """Return the batch of these examples, which must either all have an answer or all have none.

        Raises:
            UserError: an image cannot be used.
        """
        has_answers = {example.answer is not None for example in examples}
        assert len(has_answers) == 1, "either all examples of a batch have an answer or none has"
        tokens = [self._tokenize(example) for example in examples]
        self.cut.update(example.id for example, item in zip(examples, tokens, strict=True) if item.truncated)
        masks = [[1] * len(item.input_ids) for item in tokens]
        labels_BL = self._pad([item.labels for item in tokens], IGNORED) if has_answers == {True} else None
        return {
            "input_ids_BL": self._pad([item.input_ids for item in tokens], 0),
            "attention_mask_BL": self._pad(masks, 0).bool(),
            "labels_BL": labels_BL,
            "images_BCHW": self._images(examples),
            "has_image_B": torch.tensor([example.image is not None for example in examples]),
        }

    def _tokenize(self, example: Example) -> TokenizedExample:
        kept = self._tokens.get(example)
        if kept is not None:
            return kept
        if example.answer is None:
            return tokenize_prompt(self.tokenizer, example.prompt, self.max_length)
        found = tokenize_example(self.tokenizer, example.prompt, example.answer, self.max_length)
        if len(found.input_ids) <= self._room and outlives_epoch():
            self._room -= len(found.input_ids)
            self._tokens[example] = found
        return found

    def _pad(self, rows: list[list[int]], value: int) -> Tensor:
        width = max(len(row) for row in rows)
        padded = []
        for row in rows:
            fill = [value] * (width - len(row))
            padded.append(fill + row if self.padding_side == "left" else row + fill)
        return torch.tensor(padded, dtype=torch.int64)

    def _images(self, examples: Sequence[Example]) -> Tensor:
        size = self.preprocessor.size
        images_BCHW = torch.zeros(len(examples), 3, size, size)
        paths = {index: example.image for index, example in enumerate(examples) if example.image is not None}
        if paths:
            pixels_NCHW = torch.stack([self.store.pixels(path) for path in paths.values()])
            images_BCHW[list(paths)] = self.preprocessor.normalise(pixels_NCHW)
        return images_BCHW
