"""LLaVA-LoRA: visual tokens in the input, low-rank updates of the attention.

Paper: Liu, Li, Wu, Lee, "Visual Instruction Tuning", 2023. https://arxiv.org/abs/2304.08485, tuned with Hu et al.,
"LoRA: Low-Rank Adaptation of Large Language Models", 2021. https://arxiv.org/abs/2106.09685

This is the baseline of the DEHVF paper, not a published run. Deviations from LLaVA, and why:

- Features are the patches of the penultimate block after `ln_post`, as in MemVP and DEHVF, so that the methods differ
  only in how the features enter the language model. LLaVA takes that block without `ln_post`; set
  `normalize_features` to false for that.
- The projector is the bottleneck of width 128 that the other methods have, and the CLIP blocks have MemVP's parallel
  adapters. The DEHVF paper says "for fair comparison we integrate similar modules". The adapter of the last CLIP block
  never runs. The paper counts it, but it does not exist here.
- LoRA is applied to `q_proj` and `v_proj` with rank 6. The printed parameter count implies that the rank times the
  number of matrices per layer is 12. Rank 6 on two matrices is our choice among the ways to reach 12.
- The paper does not say how the parameters start. LoRA's `A` has peft's default, which is uniform with standard
  deviation `1 / √(3 · fan_in)`, and its `B` starts at zero. Weight decay applies to both. The projector and the CLIP
  adapters start as in the other methods (`methods.adapters`).
- LoRA's alpha 12 and dropout 0.05 are our choice, because the paper prints neither. A recipe may set both.
- Projector and LoRA are trained together. LLaVA first trains the projector alone on captions; that stage is left out,
  because every method in the comparison sees the same data.
- A text-only sample has no visual tokens: their columns are masked.

The published accuracy (90.85 at 7B) was made with prompts and a decoder that are not published. See docs/protocols.md.

Shape suffixes as in `methods.base`, and J visual tokens, one per patch.
"""

import re
from typing import Any, ClassVar

from peft import LoraConfig, inject_adapter_in_model
from pydantic import Field
from torch import Tensor, nn

from methods.adapters import Projector, attach_parallel_adapters, parallel_adapter_products
from methods.base import Backbone, Batch, InputSequence, MethodConfig, Source, VisualFeatures
from methods.cost import Entry, ImageCost, TokenCost, linear
from methods.decoder import select_in_last_layer
from methods.sequence import insert_after_bos

_ADAPTER = "default"


class LLaVALoRAConfig(MethodConfig):
    """Sizes and scales of LLaVA-LoRA. The defaults reproduce the printed 7B parameter count."""

    projector_dim: int = Field(128, ge=1, description="width between the projector's two layers")
    normalize_features: bool = Field(True, description="take visual features after ln_post; LLaVA takes them before")
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
        None, ge=1, description="columns that a sample keeps in training, visual ones included; None keeps all"
    )


class LLaVALoRA(nn.Module):
    """LLaVA-LoRA attached to a backbone.

    Args:
        backbone: the frozen backbone; linear layers of its language model and its CLIP blocks are wrapped in place.
        config: sizes and scales.

    Raises:
        ValueError: `lora_targets` has a name that no linear layer of a decoder layer has.
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
        check_targets(backbone.llm, config.lora_targets)
        self.config = config
        self.vision_width = backbone.vision.width
        self.num_patches: int = backbone.vision.num_patches
        self.projector = Projector(self.vision_width, config.projector_dim, backbone.hidden_size)
        self.vision_adapters = attach_parallel_adapters(
            backbone.vision,
            backbone.vision.num_layers - 1,
            config.adapter_dim,
            config.adapter_scale,
            config.adapter_dropout,
        )
        self.lora = attach_lora(backbone.llm, config)
        select_in_last_layer(backbone.llm)

    def encode_images(self, backbone: Backbone, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return `tokens_BJD`, the projected patches of the penultimate block.

        Args:
            backbone: the backbone that this method is attached to.
            images_BCHW: normalised images.
        """
        penultimate = backbone.vision.num_layers - 1
        (features_BJC,) = backbone.vision.features(images_BCHW, [penultimate], normalize=self.config.normalize_features)
        return {"tokens_BJD": self.projector(features_BJC[:, 1:])}

    def build_sequence(self, backbone: Backbone, batch: Batch, visual: VisualFeatures) -> InputSequence:
        """Return the sequence: BOS, visual tokens, text. A sample without an image has no visual tokens."""
        tokens_BJD = visual["tokens_BJD"]
        mask_BJ = visual["has_image_B"][:, None].expand(-1, tokens_BJD.shape[1])
        limit = None if batch.labels_BL is None else self.config.max_length
        embed_tokens, everyone = backbone.llm.model.embed_tokens, batch.all_have_images
        return insert_after_bos(embed_tokens, batch, tokens_BJD, mask_BJ, limit, all_inserted=everyone)

    def layer_inputs(self, visual: VisualFeatures, num_tokens: int) -> dict[str, Any]:
        """Return an empty dictionary: the visual tokens are in the input."""
        return {}

    def image_cost(self, images: int) -> ImageCost:
        """Return the products of the CLIP adapters and of the projector on the patches."""
        rows = images * (self.num_patches + 1)
        products = [
            *parallel_adapter_products("vision_adapters", self.vision_adapters, rows),
            *self.projector.products("projector", images * self.num_patches, input_grad=True),
        ]
        return ImageCost(len(self.vision_adapters), Entry(0, "ffn"), products)

    def columns(self, text_tokens: int, *, training: bool) -> int:
        """Return the columns of the text and of the patches; a training sequence has at most `max_length`."""
        columns = text_tokens + self.num_patches
        return columns if self.config.max_length is None or not training else min(columns, self.config.max_length)

    def token_cost(self, samples: int, tokens: int, read: int, *, decoding: bool) -> TokenCost:
        """Return the products of the low-rank updates of every layer.

        The visual tokens, which are trained values, are part of the input from the first layer on.
        """
        products = []
        for index, targets in enumerate(self.lora):
            assert isinstance(targets, nn.ModuleDict)
            for name, pair in targets.items():
                # The last layer needs the keys and values of every column, but nothing else of a column not read.
                everywhere = index < len(self.lora) - 1 or name in ("k_proj", "v_proj")
                rows = samples * (tokens if everywhere else read)
                matrices = [layer for layer in pair.children() if isinstance(layer, nn.Linear)]
                products += [linear("lora", layer, rows, input_grad=True) for layer in matrices]
        return TokenCost(Entry(0, "input"), [], products)

    def reference_only(self) -> dict[str, int]:
        """Return the size of the CLIP adapter of the block that never runs."""
        return {"vision_adapters.last": 2 * self.config.adapter_dim * self.vision_width}


def check_targets(llm: Any, targets: tuple[str, ...]) -> None:
    """Check that each of LoRA's targets is the name of a linear layer of the decoder layers.

    Args:
        llm: the language model.
        targets: names of the target layers.

    Raises:
        ValueError: no linear layer of a decoder layer has one of the names.
    """
    layers = llm.model.layers.named_modules()
    names = {name.rpartition(".")[2] for name, module in layers if isinstance(module, nn.Linear)}
    missing = [target for target in targets if target not in names]
    if missing:
        known = ", ".join(sorted(names))
        raise ValueError(
            f"lora_targets: no decoder layer has a linear layer {', '.join(map(repr, missing))}; choose among {known}"
        )


def attach_lora(llm: Any, config: LLaVALoRAConfig) -> nn.ModuleList:
    """Add LoRA to the decoder layers of a language model, in place, with `peft`.

    Args:
        llm: the language model.
        config: names of the target layers, which `check_targets` has checked, rank, alpha and dropout.

    Returns:
        The low-rank matrices of each decoder layer.
    """
    inject_adapter_in_model(
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # peft's annotation says int, but any number works
            lora_dropout=config.lora_dropout,
            target_modules=rf"model\.layers\.\d+\.(.*\.)?({'|'.join(map(re.escape, config.lora_targets))})",
        ),
        llm,
        adapter_name=_ADAPTER,
    )
    return nn.ModuleList(_matrices(layer, config.lora_targets) for layer in llm.model.layers)


def _matrices(layer: nn.Module, targets: tuple[str, ...]) -> nn.ModuleDict:
    """Return the low-rank matrices of one decoder layer by target name, in float32 for any dtype of the backbone."""
    found = {}
    for name, module in layer.named_modules():
        target = name.rpartition(".")[2]
        if target in targets:
            # Otherwise peft makes a float32 copy of the input, which autocast converts back to its own dtype at once.
            module.cast_input_dtype_enabled = False
            down, up = module.lora_A[_ADAPTER], module.lora_B[_ADAPTER]
            found[target] = nn.ModuleDict({"down": down.float(), "up": up.float()})
    return nn.ModuleDict(found)
