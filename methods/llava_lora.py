"""LLaVA-LoRA: visual tokens in the input, low-rank updates of the attention.

Paper: Liu, Li, Wu, Lee, "Visual Instruction Tuning", 2023. https://arxiv.org/abs/2304.08485, tuned with Hu et al.,
"LoRA: Low-Rank Adaptation of Large Language Models", 2021. https://arxiv.org/abs/2106.09685

This is the baseline that the DEHVF paper compares with, not a published run. Deviations from LLaVA, and why:
- Features are the penultimate block's patches after `ln_post`, as MemVP and DEHVF take them, so that the methods
  differ in where features go and not in what they are. LLaVA takes that block without `ln_post`
  (`normalize_features` false).
- The projector is the bottleneck of width 128 that the other methods have, and CLIP blocks have MemVP's parallel
  adapters: "for fair comparison we integrate similar modules". The adapter of the last CLIP block never runs; it is
  counted by the paper's convention and does not exist here.
- LoRA on `q_proj` and `v_proj`, rank 6: of rank times matrices only the product 12 fits the printed count, and this
  is our choice among the splits.
- Alpha 12 and dropout 0.05 of LoRA are our choice: none is printed. A recipe may set both.
- Projector and LoRA are trained together; LLaVA's first stage (projector alone on captions) has no place in a
  comparison where every method sees the same data.
- A text-only sample has no visual token at all: its columns are masked.

Shape suffixes as in `methods.base`; P projector width.
"""

import re
from typing import Any, ClassVar

from peft import LoraConfig, inject_adapter_in_model
from pydantic import Field
from torch import Tensor, nn

from methods.adapters import Projector, attach_parallel_adapters, parallel_adapter_products
from methods.base import Backbone, Batch, InputSequence, MethodConfig, Source, VisualFeatures
from methods.cost import Entry, ImageCost, TokenCost, linear
from methods.sequence import insert_after_bos

_ADAPTER = "default"


class LLaVALoRAConfig(MethodConfig):
    """Sizes and scales of LLaVA-LoRA; the defaults fit the printed 7B count."""

    projector_dim: int = Field(128, ge=1, description="width between the projector's two layers")
    normalize_features: bool = Field(True, description="visual features after ln_post; LLaVA's own are before it")
    lora_rank: int = Field(6, ge=1, description="rank of the low-rank updates")
    lora_alpha: float = Field(12.0, gt=0, description="updates are scaled by alpha / rank")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="dropout on the updates' input")
    lora_targets: tuple[str, ...] = Field(
        ("q_proj", "v_proj"), min_length=1, description="linear layers of a decoder layer that are updated"
    )
    adapter_dim: int = Field(12, ge=1, description="bottleneck of the parallel CLIP adapters")
    adapter_scale: float = Field(0.1, description="factor on the CLIP adapters' output")
    adapter_dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside the CLIP adapters")
    max_length: int | None = Field(
        None, ge=1, description="columns a sample keeps in training, the visual ones counted; None keeps all"
    )


class LLaVALoRA(nn.Module):
    """LLaVA-LoRA attached to a backbone.

    Args:
        backbone: the frozen backbone; linear layers of its language model and its CLIP blocks are wrapped in place.
        config: sizes and scales.

    Raises:
        ValueError: a decoder layer has no linear layer of a name in `lora_targets`.
    """

    name: ClassVar[str] = "llava_lora"
    title: ClassVar[str] = "LLaVA-LoRA"
    source: ClassVar[Source] = Source(
        paper="Visual Instruction Tuning (Liu et al. 2023), with LoRA (Hu et al. 2021)",
        url="https://arxiv.org/abs/2304.08485",
        summary="projected patch features as input tokens, low-rank updates of the attention",
    )
    Config: ClassVar[type[MethodConfig]] = LLaVALoRAConfig

    def __init__(self, backbone: Backbone, config: LLaVALoRAConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_width = backbone.vision.width
        self.num_patches = backbone.vision.num_patches
        self.projector = Projector(self.vision_width, config.projector_dim, backbone.hidden_size)
        self.vision_adapters = attach_parallel_adapters(
            backbone.vision,
            backbone.vision.num_layers - 1,
            config.adapter_dim,
            config.adapter_scale,
            config.adapter_dropout,
        )
        self.lora = attach_lora(backbone.llm, config)

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """`tokens_BJD`: the projected patches of the penultimate block."""
        penultimate = backbone.vision.num_layers - 1
        (features_BJC,) = backbone.vision.features(images_BCHW, [penultimate], normalize=self.config.normalize_features)
        return {"tokens_BJD": self.projector(features_BJC[:, 1:])}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """`BOS, visual tokens, text`; a text-only sample has no visual token."""
        tokens_BJD = visual["tokens_BJD"]
        mask_BJ = visual["has_image_B"][:, None].expand(-1, tokens_BJD.shape[1])
        limit = None if batch.labels_BL is None else self.config.max_length
        return insert_after_bos(backbone.llm.model.embed_tokens, batch, tokens_BJD, mask_BJ, limit)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """Nothing: the visual tokens are in the input."""
        return {}

    def image_cost(self, images: int) -> ImageCost:
        """CLIP up to the penultimate block, the CLIP adapters, the projector on the patches."""
        rows = images * (self.num_patches + 1)
        products = [
            *parallel_adapter_products("vision_adapters", self.vision_adapters, rows),
            *self.projector.products("projector", images * self.num_patches, input_grad=True),
        ]
        return ImageCost(len(self.vision_adapters), Entry(0, "ffn"), products)

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """The text and a column for each patch."""
        columns = text_tokens + self.num_patches
        return columns if self.config.max_length is None or not training else min(columns, self.config.max_length)

    def token_cost(self, samples: int, tokens: int, *, decoding: bool) -> TokenCost:
        """The low-rank updates of every layer; their input has visual tokens in it from the first layer on."""
        matrices = [layer for layer in self.lora.modules() if isinstance(layer, nn.Linear)]
        products = [linear("lora", layer, samples * tokens, input_grad=True) for layer in matrices]
        return TokenCost(Entry(0, "input"), [], products)

    def reference_only(self) -> dict[str, int]:
        """The CLIP adapter of the block that never runs."""
        return {"vision_adapters.last": 2 * self.config.adapter_dim * self.vision_width}


def attach_lora(llm: Any, config: LLaVALoRAConfig) -> nn.ModuleList:
    """Let `peft` wrap the target layers in place; returns the low-rank matrices of each decoder layer."""
    layers = llm.model.layers.named_modules()
    names = {name.rpartition(".")[2] for name, module in layers if isinstance(module, nn.Linear)}
    missing = [target for target in config.lora_targets if target not in names]
    if missing:
        raise ValueError(f"lora_targets: no decoder layer has a linear layer {', '.join(map(repr, missing))}")
    inject_adapter_in_model(
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # a factor; peft's hint says int
            lora_dropout=config.lora_dropout,
            target_modules=rf"model\.layers\.\d+\.(.*\.)?({'|'.join(map(re.escape, config.lora_targets))})",
        ),
        llm,
        adapter_name=_ADAPTER,
    )
    return nn.ModuleList(_matrices(layer, config.lora_targets) for layer in llm.model.layers)


def _matrices(layer: nn.Module, targets: tuple[str, ...]) -> nn.ModuleDict:
    """The low-rank matrices of one layer by target, in float32 whatever the frozen weights are held in."""
    found = {}
    for name, module in layer.named_modules():
        target = name.rpartition(".")[2]
        if target in targets:
            # peft would make a float32 copy of the input, which autocast takes back to its own dtype at once.
            module.cast_input_dtype_enabled = False
            down, up = module.lora_A[_ADAPTER], module.lora_B[_ADAPTER]
            found[target] = nn.ModuleDict({"down": down.float(), "up": up.float()})
    return nn.ModuleDict(found)
