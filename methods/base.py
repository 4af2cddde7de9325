"""The contract: what a method is given, what it computes, and which parameters are its own.

A method is an `nn.Module` built from a frozen backbone and its config. Building it attaches it: it wraps or
replaces submodules of the backbone. Its own parameters are exactly `method.parameters()`: freezing, saving
and counting all ask that one source.

Shape suffixes: B batch, L text tokens, T sequence columns (text and inserted visual tokens), D hidden_size,
V vocabulary, J patches, C vision width, H W image height and width, I samples with an image, Q labelled tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

IGNORE_INDEX = -100

VisualFeatures = Mapping[str, Tensor]
"""What a method computes from the images, once per image: named tensors, batch first, so that a decoder can
repeat or reorder samples without knowing what they mean."""


class MethodConfig(BaseModel):
    """Base of every method's config: unknown fields, NaN and infinity are refused, values are fixed once built."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Source:
    """Where a method comes from: the paper's title, its address, and one line on what the method does."""

    paper: str
    url: str
    summary: str


Padding = Literal["none", "left", "right", "both"]


@dataclass(frozen=True)
class BatchFacts:
    """What a step needs to know about its batch before it runs, computed when the batch is built.

    The collator builds batches on the CPU. Without these facts every step would have to look at tensors on the device
    and wait for it: to find the samples with an image, the labelled tokens and the padding.

    Attributes:
        image_rows_I: indices of the samples that carry an image, ascending.
        label_rows_Q: indices of the labelled tokens in the flattened `labels_BL`, ascending. The first token of a
            sample is left out, because nothing stands before it that could predict it.
        padding: the side that samples are padded on; "none" where every column of every sample is a real token.
    """

    image_rows_I: Tensor
    label_rows_Q: Tensor
    padding: Padding

    @classmethod
    def of(cls, mask_BL: Tensor, labels_BL: Tensor | None, has_image_B: Tensor) -> "BatchFacts":
        """The facts of a batch. This reads values of the tensors, so give it tensors on the CPU."""
        label_rows_Q = has_image_B.new_zeros(0, dtype=torch.long)
        if labels_BL is not None:
            predicted_BL = (labels_BL != IGNORE_INDEX) & ~first_token(mask_BL)
            label_rows_Q = predicted_BL.flatten().nonzero().squeeze(1)
        return cls(has_image_B.nonzero().squeeze(1), label_rows_Q, _padding(mask_BL))


@dataclass(frozen=True)
class Batch:
    """One batch of text and images. Build it on the CPU, then move it with `to`.

    Attributes:
        input_ids_BL: token ids; the first real token of a sample is BOS.
        attention_mask_BL: true where a token is real and false where it is padding.
        labels_BL: token ids to predict, `IGNORE_INDEX` elsewhere; None for prompts without answers.
        images_BCHW: normalised images; all zero for a text-only sample.
        has_image_B: true where the sample carries an image.
        facts: computed from the tensors above when the batch is built.
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
        """Whether every sample carries an image; known without looking at the device."""
        return len(self.facts.image_rows_I) == len(self.has_image_B)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Batch":
        """The same batch on `device`. The facts move with it and are not computed again."""

        def move(part: Any) -> Any:
            moved = copy(part)
            for name, value in vars(part).items():
                if isinstance(value, Tensor):
                    object.__setattr__(moved, name, value.to(device, non_blocking=non_blocking))
            return moved

        batch: Batch = move(self)
        object.__setattr__(batch, "facts", move(self.facts))
        return batch


@dataclass(frozen=True)
class InputSequence:
    """What the language model reads for one batch, with visual tokens inserted.

    Attributes:
        inputs_embeds_BTD: input embeddings.
        attention_mask: which columns may be attended to. None: every column is in use, and attention is causal.
            `B×T`: true where a column is in use, and attention is causal. `B×1×T×T`, where a method needs more than
            that: true where the row may attend to the column.
        key_mask_BT: true for the columns that later tokens may attend to.
        position_ids_BT: rotary positions.
        columns_BL: the column of each text token; -1 for padding and for a token that was cut off. A label is
            predicted from the column before that of its token.
    """

    inputs_embeds_BTD: Tensor
    attention_mask: Tensor | None
    key_mask_BT: Tensor
    position_ids_BT: Tensor
    columns_BL: Tensor


class VisionTower(Protocol):
    """A frozen CLIP vision transformer."""

    width: int
    num_layers: int
    num_patches: int

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks; a method may wrap what is inside them."""
        ...

    def features(self, images_BCHW: Tensor, blocks: Sequence[int], *, normalize: bool) -> list[Tensor]:
        """Hidden states after the given 1-based blocks, each `B×(J+1)×C` with CLS first.

        Blocks after the last one asked for do not run. `normalize` applies the tower's `ln_post`.
        """
        ...

    def stacked_features(self, images_BCHW: Tensor, blocks: Sequence[int], *, normalize: bool) -> Tensor:
        """`features` of all the blocks in one tensor, `B×X×(J+1)×C`."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """The frozen pair of language model and vision tower that every method is attached to."""

    @property
    def llm(self) -> Any:
        """A Llama-architecture `LlamaForCausalLM`."""
        ...

    @property
    def vision(self) -> Any:
        """A `VisionTower`."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The language model's tokenizer."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        ...

    @property
    def num_layers(self) -> int:
        """Decoder layers of the language model."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that holds the frozen weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the frozen weights are held and computed in."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """The modules to freeze: the language model and the vision tower."""
        ...


class Method(Protocol):
    """One fine-tuning method attached to one backbone; an `nn.Module` in practice.

    A method may also have `decoding_features(layer_inputs) -> dict[str, Tensor]`: what running the prompt left in the
    layer inputs, batch first; decoded tokens find it among the visual features of `layer_inputs`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[Source]
    Config: ClassVar[type[MethodConfig]]
    config: Any

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Everything that depends on the images alone; called once per image, never per decoded token."""
        ...

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Text ids to what the language model reads; input-space methods insert their visual tokens here."""
        ...

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """Keyword arguments handed to every decoder layer.

        A value that differs by layer is a list with an item a layer; the module that reads it has `layer_idx`.
        `visual` also holds `has_image_B`; `num_tokens` is the length of the forward they are meant for, so that a
        method can choose between forms of equal output.
        """
        ...

    def reference_only(self) -> dict[str, int]:
        """Parameters that the reference code counts and never trains: name -> count. Not created here."""
        ...


def plain_sequence(embed_tokens: nn.Module, batch: Batch) -> InputSequence:
    """The sequence of a method that inserts nothing: the embedded text, its padding mask and its positions."""
    mask_BL = batch.attention_mask_BL.bool()
    columns_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    return InputSequence(
        inputs_embeds_BTD=embed_tokens(batch.input_ids_BL),
        attention_mask=None if batch.facts.padding == "none" else mask_BL,
        key_mask_BT=mask_BL,
        position_ids_BT=positions_from_mask(mask_BL),
        columns_BL=columns_L.where(mask_BL, -1),
    )


def positions_from_mask(mask_BT: Tensor) -> Tensor:
    """Rotary positions that count real columns only, so that padding never shifts a token."""
    return (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)


def first_token(mask_BL: Tensor) -> Tensor:
    """`B×L`, true at the first real token of each sample, its BOS."""
    columns_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    return (columns_L == mask_BL.int().argmax(dim=1, keepdim=True)) & mask_BL


def _padding(mask_BL: Tensor) -> Padding:
    if bool(mask_BL.all()):
        return "none"
    if bool(mask_BL[:, -1].all()):
        return "left"
    return "right" if bool(mask_BL[:, 0].all()) else "both"


def causal_mask(visible_BT: Tensor, *, itself: bool = False) -> Tensor:
    """`B×1×T×T`, true where the row may attend to the column: a visible column that is not later.

    Args:
        visible_BT: true for the columns that may be attended to.
        itself: whether every column attends to itself too, visible or not.
    """
    index_T = torch.arange(visible_BT.shape[1], device=visible_BT.device)
    allowed_BTT = visible_BT[:, None] & (index_T[:, None] >= index_T)
    return (allowed_BTT | (index_T[:, None] == index_T) if itself else allowed_BTT)[:, None]


def freeze(backbone: Backbone, method: nn.Module) -> None:
    """Freeze the backbone and leave exactly the method's own parameters trainable."""
    for module in backbone.modules():
        module.requires_grad_(False)
    method.requires_grad_(True)


def adapter_parameters(method: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters of a method by name: what is saved, counted and optimised."""
    return dict(method.named_parameters())
