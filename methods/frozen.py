"""No method at all: the frozen language model on text alone. Reference rows and yardsticks are made with it."""

from typing import Any, ClassVar

from torch import Tensor, nn

from methods.base import Backbone, Batch, InputSequence, MethodConfig, Source, VisualFeatures, plain_sequence


class Frozen(nn.Module):
    """Satisfies the contract with nothing attached and no parameters; not registered, it is no method to compare.

    Args:
        backbone: the frozen backbone, left as it is.
        config: has no fields.
    """

    name: ClassVar[str] = "frozen"
    title: ClassVar[str] = "Frozen LLM"
    source: ClassVar[Source] = Source(paper="", url="", summary="the frozen language model on text alone")
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    def __init__(self, backbone: Backbone, config: MethodConfig | None = None) -> None:
        super().__init__()
        self.config = config or MethodConfig()

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Nothing: images are not looked at."""
        return {}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Text alone."""
        return plain_sequence(backbone.llm.model.embed_tokens, batch)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """None."""
        return {}

    def reference_only(self) -> dict[str, int]:
        """None."""
        return {}
