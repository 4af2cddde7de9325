"""Backbones of the published sizes on the meta device, without storage, to count parameters."""

from typing import Any

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from transformers import LlamaConfig, LlamaForCausalLM

from harness.backbone.loader import Backbone, VisionTower
from methods import get_method
from tests.backbones import assemble

LLAMA = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}


def real_size_backbone(size: str) -> Backbone:
    """Return LLaMA-7B or 13B with CLIP ViT-L/14, on the meta device."""
    with torch.device("meta"):
        llm = LlamaForCausalLM(LlamaConfig(**LLAMA[size]))
        vision = VisionTransformer(
            image_size=224,
            patch_size=14,
            width=1024,
            layers=24,
            heads=16,
            mlp_ratio=4.0,
            output_dim=768,
            act_layer=QuickGELU,
        )
    return assemble(llm, VisionTower(vision))


def paper_count(name: str, backbone: Any, **config: Any) -> int:
    """Return a method's trainable parameters as the paper counts them.

    These are the parameters that exist here, and those that only the reference code has.
    """
    method_class = get_method(name)
    with torch.device("meta"):
        method = method_class(backbone, method_class.Config(**config))
    return sum(p.numel() for p in method.parameters()) + sum(method.reference_only().values())
