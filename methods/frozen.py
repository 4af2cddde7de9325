"""The frozen language model on text alone, without any method. The `oracle` row and the timing of the
bare backbone use it."""

from typing import Any, ClassVar

from torch import Tensor, nn

from methods.base import Backbone, Batch, InputSequence, MethodConfig, Source, VisualFeatures, plain_sequence
from methods.decoder import select_in_last_layer


class Frozen(nn.Module):
    """Satisfies `methods.base.Method` without parameters and without changing what the language model computes.

    It is not registered, because it is not a method to compare.

    Args:
        backbone: the frozen backbone; its last decoder layer is wrapped in place.
        config: a config without fields.
    """

    name: ClassVar[str] = "frozen"
    title: ClassVar[str] = "Frozen LLM"
    source: ClassVar[Source] = Source(paper="", url="", summary="the frozen language model on text alone")
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    def __init__(self, backbone: Backbone, config: MethodConfig | None = None) -> None:
        super().__init__()
        self.config = config or MethodConfig()
        select_in_last_layer(backbone.llm)

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return an empty dictionary: the images are not used."""
        return {}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Return the text alone."""
        return plain_sequence(backbone.llm.model.embed_tokens, batch)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """Return an empty dictionary: the frozen layers take nothing more."""
        return {}

    def reference_only(self) -> dict[str, int]:
        """Return an empty dictionary: there is no reference code."""
        return {}
