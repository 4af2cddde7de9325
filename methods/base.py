"""The contract: what a method is given, what it computes, and which parameters are its own.

A method is an `nn.Module` built from a frozen backbone and its config. Building it attaches it: it wraps or
replaces submodules of the backbone. Its own parameters are exactly `method.parameters()`: freezing, saving
and counting all ask that one source.

Shape suffixes: B batch, L text tokens, T sequence columns (text and inserted visual tokens), D hidden_size,
V vocabulary, J patches, C vision width, H W image height and width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

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


@dataclass(frozen=True)
class Batch:
    """One batch of text and images, padded on either side.

    Attributes:
        input_ids_BL: token ids, the first real token of a sample is BOS.
        attention_mask_BL: true where a token is real.
        labels_BL: token ids to predict, `IGNORE_INDEX` elsewhere; None when there is nothing to learn.
        images_BCHW: normalised images; all zero for a text-only sample.
        has_image_B: true where the sample carries an image.
    """

    input_ids_BL: Tensor
    attention_mask_BL: Tensor
    labels_BL: Tensor | None
    images_BCHW: Tensor
    has_image_B: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on `device`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {k: v if v is None else v.to(device, non_blocking=True) for k, v in values.items()}
        return Batch(**moved)


@dataclass(frozen=True)
class InputSequence:
    """What the language model reads for one batch, visual tokens inserted.

    Attributes:
        inputs_embeds_BTD: input embeddings.
        attention_mask: `B×T` (true where a column may be attended to) or, where a method needs more than
            padding and causality, `B×1×T×T` (true where row may attend to column).
        key_mask_BT: the columns that later tokens may attend to.
        position_ids_BT: rotary positions.
        labels_BT: labels moved to their columns, or None.
    """

    inputs_embeds_BTD: Tensor
    attention_mask: Tensor
    key_mask_BT: Tensor
    position_ids_BT: Tensor
    labels_BT: Tensor | None


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
    """The sequence of a method that inserts nothing: embeddings, padding mask, positions from the mask."""
    mask_BL = batch.attention_mask_BL.bool()
    return InputSequence(
        inputs_embeds_BTD=embed_tokens(batch.input_ids_BL),
        attention_mask=mask_BL,
        key_mask_BT=mask_BL,
        position_ids_BT=positions_from_mask(mask_BL),
        labels_BT=batch.labels_BL,
    )


def positions_from_mask(mask_BT: Tensor) -> Tensor:
    """Rotary positions that count real columns only, so that padding never shifts a token."""
    return (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)


def causal_mask(visible_BT: Tensor) -> Tensor:
    """`B×1×T×T`, true where row may attend to column: one that is visible and not later, and itself.

    An unused column attends to itself, so that no row of the softmax is empty.
    """
    index_T = torch.arange(visible_BT.shape[1], device=visible_BT.device)
    allowed_BTT = (visible_BT[:, None] & (index_T[:, None] >= index_T)) | (index_T[:, None] == index_T)
    return allowed_BTT[:, None]


def freeze(backbone: Backbone, method: nn.Module) -> None:
    """Freeze the backbone and leave exactly the method's own parameters trainable."""
    for module in backbone.modules():
        module.requires_grad_(False)
    method.requires_grad_(True)


def adapter_parameters(method: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters of a method by name: what is saved, counted and optimised."""
    return dict(method.named_parameters())
