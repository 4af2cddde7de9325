"""A batch of text and images, and the facts about it that a step needs before it runs.

Shape suffixes as in `methods.base`.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = -100
Padding = Literal["none", "left", "right", "both"]


@dataclass(frozen=True)
class BatchFacts:
    """Facts about a batch that a step needs before it runs. They are computed on the CPU, when the batch is built.

    Without them, every step would have to synchronise with the device to find the samples with an image, the labelled
    tokens and the padding.

    Attributes:
        image_rows_I: indices of the samples whose images are encoded, ascending: those that carry an image. A batch of
            fixed shape has all samples here.
        all_have_images: whether every sample carries an image.
        label_rows_Q: indices of the labelled tokens in the flattened `labels_BL`, ascending; in a batch of fixed shape,
            zeros follow them. The first token of a sample is left out, because no token precedes it that could predict
            it.
        label_ranks_Q: the number of labelled tokens before each of them in its sample; 0 where zeros follow.
        label_columns_BR: indices of each sample's labelled tokens in `labels_BL`, ascending; -1 behind its last one.
            R is the largest number of a sample, or larger.
        padding: the side that samples are padded on; "none" if every column of every sample is a real token.
    """

    image_rows_I: Tensor
    all_have_images: bool
    label_rows_Q: Tensor
    label_ranks_Q: Tensor
    label_columns_BR: Tensor
    padding: Padding

    @classmethod
    def of(cls, mask_BL: Tensor, labels_BL: Tensor | None, has_image_B: Tensor) -> "BatchFacts":
        """Return the facts of a batch.

        This reads values of the tensors, which must be on the CPU to avoid synchronising with the device.

        Args:
            mask_BL: true where a token is real.
            labels_BL: as in `Batch`; None for prompts without answers.
            has_image_B: true where the sample carries an image.
        """
        predicted_BL = torch.zeros_like(mask_BL)
        if labels_BL is not None:
            predicted_BL = (labels_BL != IGNORE_INDEX) & ~first_token(mask_BL)
        samples_Q, columns_Q = predicted_BL.nonzero(as_tuple=True)
        ranks_Q = (predicted_BL.cumsum(dim=1) - 1)[samples_Q, columns_Q]
        label_columns_BR = columns_Q.new_full((len(mask_BL), int(predicted_BL.sum(dim=1).amax())), -1)
        label_columns_BR[samples_Q, ranks_Q] = columns_Q
        return cls(
            image_rows_I=has_image_B.nonzero().squeeze(1),
            all_have_images=bool(has_image_B.all()),
            label_rows_Q=samples_Q * mask_BL.shape[1] + columns_Q,
            label_ranks_Q=ranks_Q,
            label_columns_BR=label_columns_BR,
            padding=_padding(mask_BL),
        )


@dataclass(frozen=True)
class Batch:
    """One batch of text and images. Build it on the CPU, then move it with `to`.

    Attributes:
        input_ids_BL: token ids; the first real token of a sample is BOS.
        attention_mask_BL: true where a token is real and false where it is padding.
        labels_BL: token ids to predict, `IGNORE_INDEX` elsewhere; None for prompts without answers.
        images_BCHW: normalised images; all zero for a text-only sample.
        has_image_B: true where the sample carries an image.
        facts: computed from the tensors above when the batch is built; not an argument.
    """

    input_ids_BL: Tensor
    attention_mask_BL: Tensor
    labels_BL: Tensor | None
    images_BCHW: Tensor
    has_image_B: Tensor
    facts: BatchFacts = field(init=False)

    def __post_init__(self) -> None:
        facts = BatchFacts.of(self.attention_mask_BL.bool(), self.labels_BL, self.has_image_B.bool())
        object.__setattr__(self, "facts", facts)

    @property
    def all_have_images(self) -> bool:
        """Whether every sample carries an image. Reading this does not synchronise with the device."""
        return self.facts.all_have_images

    def split(self, size: int) -> list["Batch"]:
        """Return batches of at most `size` of these samples, without the columns that are padding in all of them.

        Call this on the CPU, because it computes the facts of the new batches.

        Args:
            size: largest number of samples per batch.
        """
        if len(self.input_ids_BL) <= size:
            return [self]
        parts = []
        for start in range(0, len(self.input_ids_BL), size):
            rows = slice(start, start + size)
            used_L = self.attention_mask_BL[rows].bool().any(dim=0)
            labels_BL = None if self.labels_BL is None else self.labels_BL[rows, used_L]
            ids_BL, mask_BL = self.input_ids_BL[rows, used_L], self.attention_mask_BL[rows, used_L]
            parts.append(Batch(ids_BL, mask_BL, labels_BL, self.images_BCHW[rows], self.has_image_B[rows]))
        return parts

    def in_fixed_shape(self, samples: int, columns: int, labels: int) -> "Batch":
        """Return a batch with the same loss whose shapes, and those of its facts, depend on the arguments alone.

        The batch is padded on the right. Samples that are added repeat the first text without labels and carry no
        image. The images of all samples are encoded, also of those that carry none.

        Call this on the CPU, because it computes the facts of the new batch.

        Args:
            samples: number of samples, at least those of this batch.
            columns: number of text tokens per sample, at least those of this batch.
            labels: number of labelled tokens per sample that there is room for, at least those of this batch.
        """
        assert self.labels_BL is not None, "only a batch with labels has a loss"
        assert self.facts.padding in ("none", "right"), "a batch of fixed shape is padded on the right"
        more, wider = samples - len(self.has_image_B), columns - self.input_ids_BL.shape[1]

        def rows(tensor: Tensor, fill: float | None = None) -> Tensor:
            if not more:
                return tensor  # a copy of the images would cost time, and would not be in page-locked memory
            added = tensor[:1].expand(more, *tensor.shape[1:])
            return torch.cat([tensor, added if fill is None else torch.full_like(added, fill)])

        batch = Batch(
            F.pad(rows(self.input_ids_BL), (0, wider)),
            F.pad(rows(self.attention_mask_BL), (0, wider)),
            F.pad(rows(self.labels_BL, IGNORE_INDEX), (0, wider), value=IGNORE_INDEX),
            rows(self.images_BCHW, 0),
            rows(self.has_image_B, False),
        )
        facts = batch.facts
        # The first token of a sample is never labelled, so rows that point at token 0 have no target.
        room = samples * labels - len(facts.label_rows_Q)
        fixed = replace(
            facts,
            image_rows_I=torch.arange(samples),
            all_have_images=False,
            label_rows_Q=F.pad(facts.label_rows_Q, (0, room)),
            label_ranks_Q=F.pad(facts.label_ranks_Q, (0, room)),
            label_columns_BR=F.pad(facts.label_columns_BR, (0, labels - facts.label_columns_BR.shape[1]), value=-1),
            padding="right",
        )
        object.__setattr__(batch, "facts", fixed)
        return batch

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Batch":
        """Return the same batch on another device. The facts are moved, not computed again.

        Args:
            device: where the tensors go.
            non_blocking: whether the copies may run while the host continues.
        """

        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """Return the same batch in page-locked memory, from which copies to a GPU may run while the host continues."""
        return self._map(Tensor.pin_memory)

    def clone(self) -> "Batch":
        """Return the same batch in memory of its own."""
        return self._map(Tensor.clone)

    def copy_(self, other: "Batch") -> None:
        """Copy the tensors of a batch of the same shape into those of this one, also from another device."""
        for own, theirs in ((self, other), (self.facts, other.facts)):
            for name, value in vars(own).items():
                if isinstance(value, Tensor):
                    value.copy_(getattr(theirs, name), non_blocking=True)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch, facts included, with the function applied to each tensor."""

        def mapped(part: Any) -> Any:
            result = copy(part)
            for name, value in vars(part).items():
                if isinstance(value, Tensor):
                    object.__setattr__(result, name, function(value))
            return result

        batch: Batch = mapped(self)
        object.__setattr__(batch, "facts", mapped(self.facts))
        return batch


def first_token(mask_BL: Tensor) -> Tensor:
    """Return a mask `B×L` that is true at the first real token of each sample, its BOS."""
    columns_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    return (columns_L == mask_BL.int().argmax(dim=1, keepdim=True)) & mask_BL


def _padding(mask_BL: Tensor) -> Padding:
    if bool(mask_BL.all()):
        return "none"
    if bool(mask_BL[:, -1].all()):
        return "left"
    return "right" if bool(mask_BL[:, 0].all()) else "both"
