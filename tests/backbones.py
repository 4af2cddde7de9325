"""Small random backbones, batches and configs for the tests: no downloaded weights, no hub, float32 by default.

Weights have a larger standard deviation than usual and the scales of visual entries are raised, so that a wrong term
moves the output far beyond a test's tolerance.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from open_clip.transformer import VisionTransformer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness.backbone.loader import Backbone, VisionTower
from harness.config.presets import BackboneSpec
from methods import get_method
from methods.base import IGNORE_INDEX, Batch
from methods.tuned import TunedModel

PAD, BOS, EOS = 0, 1, 2


class TinyTokenizer:
    """Give each character one id: `3 + code point mod (vocab_size - 3)`; 0, 1, 2 are padding, BOS and EOS."""

    pad_token_id, bos_token_id, eos_token_id = PAD, BOS, EOS

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str, add_special_tokens: bool = True, **options: Any) -> list[int]:
        ids = [3 + ord(character) % (self.vocab_size - 3) for character in text]
        return [BOS, *ids] if add_special_tokens else ids


def assemble(llm: Any, vision: VisionTower) -> Backbone:
    """Return a backbone made of the given parts, with the one-character tokenizer."""
    spec = BackboneSpec("test", llm=None, clip=None, llm_config=None, clip_config=None, display="test")
    return Backbone(llm, vision, TinyTokenizer(llm.config.vocab_size), spec, "random")


def tiny_backbone(
    seed: int = 0,
    *,
    hidden_size: int = 64,
    num_layers: int = 4,
    num_heads: int = 4,
    num_kv_heads: int = 4,
    vocab_size: int = 97,
    vision_width: int = 48,
    vision_layers: int = 8,
    image_size: int = 32,
    patch_size: int = 8,
    tie: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """Return a random frozen Llama and CLIP tower in eval mode; equal arguments give equal weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        llm = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=hidden_size,
                intermediate_size=hidden_size + hidden_size // 2,
                num_hidden_layers=num_layers,
                num_attention_heads=num_heads,
                num_key_value_heads=num_kv_heads,
                vocab_size=vocab_size,
                tie_word_embeddings=tie,
                initializer_range=hidden_size**-0.5,
                pad_token_id=PAD,
                bos_token_id=BOS,
                eos_token_id=EOS,
            )
        )
        vision = VisionTransformer(
            image_size=image_size,
            patch_size=patch_size,
            width=vision_width,
            layers=vision_layers,
            heads=4,
            mlp_ratio=4.0,
            output_dim=16,
        )
    return assemble(llm.to(dtype).eval(), VisionTower(vision).to(dtype).eval())


def random_batch(
    backbone: Any,
    batch: int = 3,
    length: int = 12,
    seed: int = 0,
    padding: Literal["right", "left"] | None = None,
    has_image: Sequence[bool] | None = None,
) -> Batch:
    """Return a batch of random text and images.

    Args:
        backbone: gives the vocabulary and the image size.
        batch: number of samples.
        length: number of columns.
        seed: seed of everything that is drawn.
        padding: side on which samples after the first are padded by a random amount; None for full rows.
        has_image: which samples have an image; by default every other one, the first included.

    Returns:
        A batch whose samples start with BOS; the second half of each sample's tokens is labelled.
    """
    generator = torch.Generator().manual_seed(seed)
    flags = torch.arange(batch) % 2 == 0 if has_image is None else torch.tensor(list(has_image), dtype=torch.bool)
    size = backbone.vision.image_size
    images = torch.randn(batch, 3, size, size, generator=generator) * flags[:, None, None, None]
    ids = torch.full((batch, length), PAD)
    labels = torch.full((batch, length), IGNORE_INDEX)
    for row in range(batch):
        real = length
        if padding is not None and row > 0:
            real = int(torch.randint(min(4, length), length + 1, (1,), generator=generator))
        start = length - real if padding == "left" else 0
        tokens = torch.randint(3, backbone.llm.config.vocab_size, (real,), generator=generator)
        tokens[0] = BOS
        ids[row, start : start + real] = tokens
        labels[row, start + real // 2 : start + real] = tokens[real // 2 :]
    return Batch(ids, ids != PAD, labels, images, flags)


def rows(batch: Batch, picked: Sequence[int]) -> Batch:
    """Return some samples of a batch, in the given order."""
    picked = list(picked)
    return Batch(
        batch.input_ids_BL[picked],
        batch.attention_mask_BL[picked],
        None if batch.labels_BL is None else batch.labels_BL[picked],
        batch.images_BCHW[picked],
        batch.has_image_B[picked],
    )


def alone(batch: Batch, row: int) -> Batch:
    """Return one sample of a batch, without its padding."""
    one, real = rows(batch, [row]), batch.attention_mask_BL[row].bool()
    labels = None if one.labels_BL is None else one.labels_BL[:, real]
    return replace(one, input_ids_BL=one.input_ids_BL[:, real], attention_mask_BL=real[real][None], labels_BL=labels)


SMALL = {
    "projector_dim": 16,
    "fuser_dim": 16,
    "fuser_heads": 4,
    "fuser_blocks": 2,
    "visual_scale": 0.5,
    "memory_scale": 0.5,
    "adapter_dim": 4,
}
"""Values of config fields that suit a tiny backbone; a method gets those that its config has."""


def tiny_config(method: type, backbone: Any, **overrides: Any) -> Any:
    """Return the method's config with sizes that suit the backbone."""
    values: dict[str, Any] = {**SMALL, "memory_length": backbone.vision.num_patches + 4}
    fields = method.Config.model_fields
    return method.Config(**{**{k: v for k, v in values.items() if k in fields}, **overrides})


def no_dropout(name: str) -> dict[str, float]:
    """Return the settings of a method that switch off every dropout in it."""
    return {field: 0.0 for field in get_method(name).Config.model_fields if field.endswith("_dropout")}


def randomise(method: nn.Module, seed: int = 1, std: float = 0.1) -> None:
    """Fill every parameter with noise, so that zero initialisation hides nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))


def tuned_model(name: str, backbone: Any = None, *, random: bool = True, seed: int = 1, **overrides: Any) -> TunedModel:
    """Return a method attached to a backbone (default: a new tiny one), in eval mode; `random` applies `randomise`."""
    backbone = tiny_backbone() if backbone is None else backbone
    method_class = get_method(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        method = method_class(backbone, tiny_config(method_class, backbone, **overrides))
    if random:
        randomise(method, seed)
    return TunedModel(backbone, method).eval()
