"""FLOPs of every method by formula, per module, for a training step and for inference.

Matrix products only, multiply-add = 2 FLOPs (`methods.cost`). The frozen towers are counted here, what a method
adds is its own to say (`methods.cost.Costed`). Attention scores are counted in full, without the causal half saved,
and their backward as two products for each of the forward's (a fused kernel that recomputes them does more). The
optimiser's step is elementwise and not counted.

Sizes: B samples, T columns of a forward, S columns attended to, D hidden_size, C vision width, J patches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from harness.backbone.loader import Backbone
from harness.errors import UserError
from methods.cost import Costed, Entry, Product, matmul

Phase = Literal["train", "inference"]
_PLACES = ("input", "attention", "ffn")


@dataclass(frozen=True)
class Workload:
    """One batch of each phase; every sample has an image and no padding. The defaults are the paper's Table 2.

    Attributes:
        text_length: text tokens of a sample, BOS included.
        labels: labelled tokens of a training sample; logits are computed there alone.
        new_tokens: tokens decoded by inference, the first one by the prefill.
        train_batch: samples of a training step.
        eval_batch: samples of an inference batch.
    """

    text_length: int = 256
    labels: int = 6
    new_tokens: int = 1
    train_batch: int = 4
    eval_batch: int = 32

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be at least 1")


@dataclass(frozen=True)
class Flops:
    """FLOPs of one module in one batch."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        return self.forward + self.backward


def count_flops(backbone: Backbone, method: Any, phase: Phase, work: Workload) -> dict[str, Flops]:
    """FLOPs of one batch by module, in the order they run.

    Args:
        backbone: on the meta device, with `method` attached (`harness.run.attach.attach_on_meta`).
        method: satisfies `methods.cost.Costed`.
        phase: a training step (forward and backward), or inference (image encoding, prefill, tokens).
        work: the batch.

    Raises:
        UserError: the method does not say what it costs.
    """
    if not isinstance(method, Costed):
        raise UserError(
            f"method {method.name}: does not say what it costs; give it image_cost, columns and token_cost "
            "(methods/cost.py)"
        )
    training = phase == "train"
    # Methods choose between forms by whether a backward pass will follow.
    with torch.set_grad_enabled(training):
        products = _train(backbone, method, work) if training else _inference(backbone, method, work)
    found: dict[str, Flops] = {}
    for product in products:
        if product.flops:
            before = found.get(product.module, Flops(0, 0))
            backward = product.flops * product.gradients if training else 0
            found[product.module] = Flops(before.forward + product.flops, before.backward + backward)
    return found


def total_flops(by_module: Mapping[str, Flops]) -> int:
    """Forward and backward of all modules together."""
    return sum(flops.total for flops in by_module.values())


def _train(backbone: Backbone, method: Costed, work: Workload) -> list[Product]:
    tokens = method.columns(work.text_length, training=True)
    return [
        *_images(backbone, method, work.train_batch),
        *_forward(backbone, method, work.train_batch, tokens, tokens, decoding=False, prepare=True),
        _head(backbone, work.train_batch * work.labels),
    ]


def _inference(backbone: Backbone, method: Costed, work: Workload) -> list[Product]:
    samples = work.eval_batch
    prompt = method.columns(work.text_length, training=False)
    products = [
        *_images(backbone, method, samples),
        *_forward(backbone, method, samples, prompt, prompt, decoding=False, prepare=True),
        _head(backbone, samples),
    ]
    for step in range(1, work.new_tokens):
        # What depends on the images alone is made anew for one-token forwards, then kept.
        products += _forward(backbone, method, samples, 1, prompt + step, decoding=True, prepare=step == 1)
        products.append(_head(backbone, samples))
    return products


def _images(backbone: Backbone, method: Costed, images: int) -> list[Product]:
    cost = method.image_cost(images)
    return [*_vision_products(backbone.vision, images, cost.blocks, cost.entry), *cost.products]


def _forward(
    backbone: Backbone, method: Costed, samples: int, tokens: int, keys: int, *, decoding: bool, prepare: bool
) -> list[Product]:
    cost = method.token_cost(samples, tokens, decoding=decoding)
    frozen = _llm_products(backbone.llm.config, samples, tokens, keys, cost.entry)
    return [*(cost.prepared if prepare else ()), *frozen, *cost.products]


def _after(entry: Entry | None, layer: int, place: str) -> int:
    """1 if the value at `place` of `layer` needs a gradient, else 0."""
    if entry is None:
        return 0
    return int((layer, _PLACES.index(place)) >= (entry.layer, _PLACES.index(entry.place)))


def _vision_products(vision: Any, images: int, blocks: int, entry: Entry | None) -> list[Product]:
    """Patch embedding and the first `blocks` blocks; the tower does not run at all when `blocks` is 0."""
    if not blocks:
        return []
    width, patches = vision.width, vision.num_patches
    tokens = patches + 1
    rows = images * tokens
    hidden = next(m for name, m in vision.blocks[0].named_modules() if name.endswith("c_fc")).out_features
    pixels = vision.visual.conv1.weight[0].numel()
    products = [matmul("clip.patch_embedding", images * patches, pixels, width, gradients=0)]
    for block in range(blocks):
        inside, behind = _after(entry, block, "input"), _after(entry, block, "attention")
        products += [
            matmul("clip.attention", rows, width, 3 * width, gradients=inside),
            matmul("clip.attention_scores", 2 * images * tokens, width, tokens, gradients=2 * inside),
            matmul("clip.attention", rows, width, width, gradients=inside),
            matmul("clip.ffn", 2 * rows, width, hidden, gradients=behind),
        ]
    return products


def _llm_products(config: Any, samples: int, tokens: int, keys: int, entry: Entry) -> list[Product]:
    """The frozen decoder layers on `tokens` columns a sample that attend to `keys` columns."""
    width, rows = config.hidden_size, samples * tokens
    head_dim = getattr(config, "head_dim", None) or width // config.num_attention_heads
    queries, shared = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    products = [Product("llm.embedding", 0, 0)]
    for layer in range(config.num_hidden_layers):
        inside, behind = _after(entry, layer, "input"), _after(entry, layer, "attention")
        products += [
            matmul("llm.attention", rows, width, queries + 2 * shared, gradients=inside),
            matmul("llm.attention_scores", 2 * rows, queries, keys, gradients=2 * inside),
            matmul("llm.attention", rows, queries, width, gradients=behind),
            matmul("llm.ffn", 3 * rows, width, config.intermediate_size, gradients=behind),
        ]
    return products


def _head(backbone: Backbone, rows: int) -> Product:
    config = backbone.llm.config
    return matmul("llm.lm_head", rows, config.hidden_size, config.vocab_size, gradients=1)
