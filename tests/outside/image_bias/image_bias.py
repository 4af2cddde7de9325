"""Image bias: the image as one vector, added beside every FFN of the language model.

Paper: none. This is the example of CONTRIBUTING.md: about the least that keeps the contract and sees the image.

With c the CLS token after the last CLIP block, ind the has-image flag and g a gate of each layer, the FFN of that layer
gives `FFN(u) + g · ind · f(c)`, the same f(c) at every token. Gates are zero at init.

Shape suffixes as in `methods.base`.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.adapters import Projector
from methods.base import Backbone, Batch, InputSequence, MethodConfig, Source, VisualFeatures, plain_sequence
from methods.decoder import AdaptedDecoderLayer


class ImageBiasConfig(MethodConfig):
    """Sizes of the image bias."""

    projector_dim: int = Field(64, ge=1, description="width between the projector's two layers")


class GatedBias(nn.Module):
    """Beside the FFN of one layer: the image's vector behind this layer's gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, u_BTD: Tensor, bias_B1D: Tensor) -> Tensor:
        """`B×1×D`, which the decoder layer adds at every token."""
        # Trained parameters are float32; a half-precision residual stream must stay what it is.
        return (self.gate * bias_B1D).to(u_BTD.dtype)


class ImageBias(nn.Module):
    """Image bias attached to a backbone.

    Args:
        backbone: the frozen backbone; its decoder layers are wrapped in place.
        config: sizes.
    """

    name: ClassVar[str] = "image_bias"
    title: ClassVar[str] = "Image bias"
    source: ClassVar[Source] = Source(
        paper="none, the example of CONTRIBUTING.md",
        url="https://example.org/image-bias",
        summary="the projected CLS token, added beside every FFN behind a gate",
    )
    Config: ClassVar[type[MethodConfig]] = ImageBiasConfig

    def __init__(self, backbone: Backbone, config: ImageBiasConfig) -> None:
        super().__init__()
        self.config = config
        self.projector = Projector(backbone.vision.width, config.projector_dim, backbone.hidden_size)
        self.biases = nn.ModuleList(GatedBias() for _ in range(backbone.num_layers))
        layers = backbone.llm.model.layers
        for index, bias in enumerate(self.biases):
            layers[index] = AdaptedDecoderLayer(layers[index], beside_ffn=bias)

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """`image_B1D`: the projected CLS token of the last block."""
        (features_BJC,) = backbone.vision.features(images_BCHW, [backbone.vision.num_layers], normalize=True)
        return {"image_B1D": self.projector(features_BJC[:, :1])}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Text alone: the image comes in beside the FFNs."""
        return plain_sequence(backbone.llm.model.embed_tokens, batch)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """`bias_B1D`: the image's vector, zero for a sample without an image."""
        image_B1D = visual["image_B1D"]
        return {"bias_B1D": image_B1D * visual["has_image_B"].to(image_B1D.dtype)[:, None, None]}

    def reference_only(self) -> dict[str, int]:
        """Nothing: there is no reference code."""
        return {}
