"""The contract: what a method is given, what it computes, and which parameters are its own.

A method is an `nn.Module` built from a frozen backbone and its config. Building it attaches it: it wraps or
replaces submodules of the backbone. Its own parameters are exactly `method.parameters()`. Freezing, saving and
counting all use these and no others.

Shape suffixes: B batch, L text tokens, T sequence columns (text and inserted visual tokens), D hidden_size,
V vocabulary, J patches, C vision width, H W image height and width, I samples with an image, Q labelled tokens,
R columns that are read of each sample.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE_INDEX = -100
_BIAS = re.compile(r"bias(_[A-Z0-9]+)?$")
LARGEST_NUMBER = 1_000_000
"""No size or factor of a method is larger. The product of two such sizes is still a number of values."""
LONGEST_TEXT = 1_000
"""No text of a method's config has more characters, and no list of it more entries."""

VisualFeatures = Mapping[str, Tensor]
"""What a method computes from the images, once per image: named tensors with the batch dimension first. Beam search
can therefore repeat or reorder samples without knowing what the tensors mean."""


class MethodConfig(BaseModel):
    """Base of every method's config.

    It rejects unknown fields, NaN, infinity, numbers beyond `LARGEST_NUMBER` and texts and lists longer than
    `LONGEST_TEXT`, and it cannot change once built.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for name, value in self:
            if isinstance(value, int | float) and abs(value) > LARGEST_NUMBER:
                raise ValueError(f"{name}: is beyond {LARGEST_NUMBER}, the largest number that a method takes")
            if isinstance(value, str | tuple | list) and len(value) > LONGEST_TEXT:
                raise ValueError(f"{name}: is longer than {LONGEST_TEXT:,}, the most that a method takes")
        return self


@dataclass(frozen=True)
class Source:
    """Where a method comes from, as `python -m harness methods` prints it.

    Attributes:
        paper: title, authors and year of the paper.
        url: address of the paper.
        summary: one line on what the method does.
    """

    paper: str
    url: str
    summary: str


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
        label_rows_Q: indices of the labelled tokens in the flattened `labels_BL`, ascending. The first token of a
            sample is left out, because no token precedes it that could predict it.
        label_ranks_Q: the number of labelled tokens before each of them in its sample.
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


@dataclass(frozen=True)
class Diagnostic:
    """Numbers that show what a method does inside, for each sample of a batch.

    Attributes:
        name: short name in lower case, such as `figure3` for Figure 3 of the method's paper.
        title: what is shown, as a heading.
        about: how to read it, and what the method's paper says of it, in sentences.
        rows, columns: what the two dimensions behind the batch count.
        row_labels, column_labels: names of their entries.
        values_BNM: the numbers, `B×N×M`, with one entry for each row label and column label.
    """

    name: str
    title: str
    about: str
    rows: str
    columns: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    values_BNM: Tensor


class VisionTower(Protocol):
    """A frozen CLIP vision transformer.

    Attributes:
        width: width of the hidden states (C).
        num_layers: number of transformer blocks.
        num_patches: patches per image, without the CLS token (J).
    """

    width: int
    num_layers: int
    num_patches: int

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order. A method may wrap their submodules."""
        ...

    def features(self, images_BCHW: Tensor, blocks: Sequence[int], *, normalize: bool) -> list[Tensor]:
        """Return the hidden states after the given blocks, each `B×(J+1)×C` with the CLS token first.

        Blocks after the last one asked for do not run.

        Args:
            images_BCHW: normalised images.
            blocks: numbers of the blocks, counted from 1, in ascending order.
            normalize: whether to apply the tower's last layer norm, `ln_post`.
        """
        ...

    def stacked_features(self, images_BCHW: Tensor, blocks: Sequence[int], *, normalize: bool) -> Tensor:
        """Return what `features` returns as one tensor, `B×X×(J+1)×C`, where X counts the blocks asked for."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """The frozen pair of language model and vision tower that every method is attached to."""

    @property
    def llm(self) -> Any:
        """The language model, a `LlamaForCausalLM`."""
        ...

    @property
    def vision(self) -> Any:
        """The vision tower, a `VisionTower`."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The language model's tokenizer."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of the language model's hidden states."""
        ...

    @property
    def num_layers(self) -> int:
        """Number of decoder layers of the language model."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that holds the frozen weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the frozen weights are stored and used."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """Yield the modules to freeze: the language model and the vision tower."""
        ...


class Method(Protocol):
    """One fine-tuning method attached to one backbone; an `nn.Module` in practice.

    `TunedModel` calls `encode_images`, `build_sequence` and `layer_inputs` in this order. In decoding, it calls
    `layer_inputs` again for the first token, and uses the result until samples are reordered.

    A method may also have `decoding_features(layer_inputs) -> dict[str, Tensor]`. It is called after the prompt has run
    and returns what later tokens need from it, as tensors with the batch dimension first. They are added to the visual
    features that `layer_inputs` gets in decoding.

    A method may have `diagnostics(visual) -> list[Diagnostic]`. It is called after a run was evaluated, with the visual
    features of test samples that all have an image. The run keeps the means, and the values of a few samples.

    A method may have `compiled_regions`, the names of its functions that can each be compiled into one graph. They
    must not run the blocks of the vision tower or the decoder layers, which are compiled block by block.

    Attributes:
        name: the registered name.
        title: the name that tables print.
        source: where the method comes from.
        Config: the class of its config.
        config: the config that it was built with.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[Source]
    Config: ClassVar[type[MethodConfig]]
    config: Any

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return everything that depends on the images alone. Called once per image, never per decoded token.

        Args:
            backbone: the backbone that the method is attached to.
            images_BCHW: normalised images.
        """
        ...

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Return what the language model reads. Methods with visual tokens in the input insert them here.

        Args:
            backbone: the backbone that the method is attached to.
            batch: the text.
            visual: the result of `encode_images`, and `has_image_B`.
        """
        ...

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """Return the keyword arguments that every decoder layer receives.

        A value that differs between layers is a list with one item per layer. The module that reads the list knows the
        index of its layer.

        Args:
            visual: as in `build_sequence`; in decoding, also the result of `decoding_features`.
            num_tokens: columns of the forward pass that the arguments are for. A method may use it to choose the
                cheapest of several ways to compute the same output.
        """
        ...

    def reference_only(self) -> dict[str, int]:
        """Return parameters that the paper or its code counts but never uses, as name -> count.

        They are not created here. The counts make totals comparable with the paper's.
        """
        ...


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


def positions_from_mask(mask_BT: Tensor) -> Tensor:
    """Return rotary positions, `B×T`. They count real columns only, so that padding never shifts a token."""
    return (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)


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


def freeze(backbone: Backbone, method: nn.Module) -> None:
    """Freeze the backbone and leave exactly the method's own parameters trainable.

    Args:
        backbone: the backbone that the method is attached to; its `requires_grad` flags change in place.
        method: the method; all its parameters become trainable.
    """
    for module in backbone.modules():
        module.requires_grad_(False)
    method.requires_grad_(True)


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay applies to a parameter: to all but biases and parameters with one dimension.

    A method declares a bias by its name, which ends in `bias`. A shape suffix may follow, as in `up_bias_EC`, the
    biases of several layers in one tensor. A parameter that is several vectors in one tensor but no bias is decayed.

    Args:
        name: the parameter's name, with the names of the modules that it is in.
        parameter: the parameter.
    """
    return parameter.ndim > 1 and _BIAS.search(name) is None


def adapter_parameters(method: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters of a method by name. These are saved, counted and optimised."""
    return dict(method.named_parameters())
