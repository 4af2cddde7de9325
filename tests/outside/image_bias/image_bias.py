"""Image bias: the image becomes one vector, which is added to the output of every FFN of the language model.

Paper: none. This is the example of CONTRIBUTING.md. It is close to the smallest method that satisfies the contract and
uses the image.

With c the CLS token after the last CLIP block, f the projector, ind the has-image flag and g a gate per layer, the FFN
of a layer becomes `FFN(u) + g · ind · f(c)`. The vector f(c) is the same for every token. Gates start at zero.

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
    """Runs in parallel with the FFN of one layer and multiplies the image's vector by this layer's gate."""

    token_wise: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, u_BTD: Tensor, bias_B1D: Tensor) -> Tensor:
        """Return `B×1×D`, which the decoder layer adds at every token."""
        # Trained parameters are float32, but a half-precision residual stream must stay in half precision.
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
        """Return `image_B1D`, the projected CLS token of the last block."""
        (features_BJC,) = backbone.vision.features(images_BCHW, [backbone.vision.num_layers], normalize=True)
        return {"image_B1D": self.projector(features_BJC[:, :1])}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Return the text alone. The image enters at the FFNs."""
        return plain_sequence(backbone.llm.model.embed_tokens, batch)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """Return `bias_B1D`, the image's vector, which is zero for a sample without an image."""
        image_B1D = visual["image_B1D"]
        return {"bias_B1D": image_B1D * visual["has_image_B"].to(image_B1D.dtype)[:, None, None]}

    def reference_only(self) -> dict[str, int]:
        """Return an empty dictionary: there is no reference code."""
        return {}
