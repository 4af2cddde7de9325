"""The contract: what a method is given, what it computes, and which parameters are its own.

A method is an `nn.Module` built from a frozen backbone and its config. Building it attaches it: it wraps or
replaces submodules of the backbone. Its own parameters are exactly `method.parameters()`. Freezing, saving and
counting all use these and no others (`methods.parameters`).

This module is the one from which a method imports its types: `Batch` and `InputSequence`, which have files of their
own, are exported here as well.

Shape suffixes: B batch, L text tokens, T sequence columns (text and inserted visual tokens), D hidden_size,
V vocabulary, J patches, C vision width (in `images_BCHW` the three colours), H W image height and width, I samples with
an image, Q labelled tokens, R columns that are read of each sample.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from methods.batch import IGNORE_INDEX, Batch, BatchFacts
from methods.sequence import InputSequence, plain_sequence

__all__ = [
    "IGNORE_INDEX",
    "LARGEST_NUMBER",
    "LONGEST_TEXT",
    "Backbone",
    "Batch",
    "BatchFacts",
    "Diagnostic",
    "InputSequence",
    "Method",
    "MethodConfig",
    "Source",
    "VisionTower",
    "VisualFeatures",
    "plain_sequence",
]

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
    features of samples of the evaluation split that all have an image. The run keeps the means, and the values of a few
    samples.

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

        A module inside a decoder layer must not be called here: where processes divide the layers among them, its
        frozen weights are there only while the layer runs.

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
