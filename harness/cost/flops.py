"""FLOPs of a training step and of the inference of a batch, by formula and by module.

Only matrix products are counted, with multiply-add = 2 FLOPs (`methods.cost`). This module counts those of the frozen
towers. A method counts those that it adds (`methods.cost.Costed`).

Attention scores are counted in full, although a causal kernel may skip half of them. Their backward pass is counted as
two products for each product of the forward pass; a fused kernel that computes the scores again does more. The
optimiser step is elementwise and therefore not counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from harness.backbone.loader import Backbone
from harness.errors import UserError
from methods.cost import Costed, Entry, Product, matmul

Phase = Literal["train", "inference"]
_PLACES = ("input", "attention", "ffn")
"""The places of `methods.cost.Entry` in the order in which a layer computes them."""


@dataclass(frozen=True)
class Workload:
    """The sizes of one batch of each phase. The defaults are those of the paper's Table 2.

    Every sample has an image and no padding.

    Attributes:
        text_length: text tokens per sample, BOS included.
        labels: labelled tokens per training sample; training computes logits only for them.
        new_tokens: tokens decoded per sample in inference; the prefill gives the first one.
        train_batch: samples per training step.
        eval_batch: samples per inference batch.

    Raises:
        UserError: a size is smaller than 1.
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
    """FLOPs of one module in one batch, in the forward and in the backward pass."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """FLOPs of both passes."""
        return self.forward + self.backward


def count_flops(backbone: Backbone, method: Any, phase: Phase, work: Workload) -> dict[str, Flops]:
    """Return the FLOPs of one batch by module, in the order in which the modules run.

    Args:
        backbone: the backbone on the meta device, with `method` attached (`harness.run.attach.attach_on_meta`).
        method: a method that satisfies `methods.cost.Costed`.
        phase: `train` for the forward and backward pass of a training step; `inference` for encoding the images,
            prefill and decoding.
        work: the sizes of the batch.

    Raises:
        UserError: the method does not count its FLOPs.
    """
    if not isinstance(method, Costed):
        raise UserError(
            f"method {method.name}: does not count its FLOPs; define image_cost, columns and token_cost "
            "(see methods/cost.py)"
        )
    training = phase == "train"
    # Some methods compute in another way where no gradient is needed, so the grad mode decides what is counted.
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
    """Return the FLOPs of all modules together, forward and backward."""
    return sum(flops.total for flops in by_module.values())


def _train(backbone: Backbone, method: Costed, work: Workload) -> list[Product]:
    """Return the products of the forward pass of a training step."""
    tokens = method.columns(work.text_length, training=True)
    return [
        *_images(backbone, method, work.train_batch),
        *_forward(backbone, method, work.train_batch, tokens, tokens, work.labels, decoding=False, prepare=True),
        _head(backbone, work.train_batch * work.labels),
    ]


def _inference(backbone: Backbone, method: Costed, work: Workload) -> list[Product]:
    """Return the products of encoding the images, prefill and decoding."""
    samples = work.eval_batch
    prompt = method.columns(work.text_length, training=False)
    products = [
        *_images(backbone, method, samples),
        *_forward(backbone, method, samples, prompt, prompt, 1, decoding=False, prepare=True),
        _head(backbone, samples),
    ]
    if work.new_tokens > 1:
        products += _decoding(backbone, method, samples, prompt, work.new_tokens - 1)
    return products


def _decoding(backbone: Backbone, method: Costed, samples: int, prompt: int, steps: int) -> list[Product]:
    """Return the products of decoding `steps` tokens behind a prompt, each of all steps together.

    From one step to the next, each product either stays the same or, in the attention, grows by one key. So the sum of
    all steps is half of the first and the last one, times their number, and only these two are counted.
    """
    first, last = (
        [
            *_forward(backbone, method, samples, 1, prompt + step, 1, decoding=True, prepare=False),
            _head(backbone, samples),
        ]
        for step in (1, steps)
    )
    together = [
        replace(early, flops=steps * (early.flops + late.flops) // 2) for early, late in zip(first, last, strict=True)
    ]
    # What is prepared for a forward pass is prepared once more for those of one token. All decoded tokens share it.
    return [*method.token_cost(samples, 1, 1, decoding=True).prepared, *together]


def _images(backbone: Backbone, method: Costed, images: int) -> list[Product]:
    """Return the products of encoding `images` images."""
    cost = method.image_cost(images)
    return [*_vision_products(backbone.vision, images, cost.blocks, cost.entry), *cost.products]


def _forward(
    backbone: Backbone,
    method: Costed,
    samples: int,
    tokens: int,
    keys: int,
    read: int,
    *,
    decoding: bool,
    prepare: bool,
) -> list[Product]:
    """Return the products of one forward pass of the language model; `prepare` includes those prepared once."""
    if not getattr(backbone.llm.model.layers[-1], "selects_columns", False):
        read = tokens
    cost = method.token_cost(samples, tokens, read, decoding=decoding)
    frozen = _llm_products(backbone.llm.config, samples, tokens, keys, read, cost.entry)
    return [*(cost.prepared if prepare else ()), *frozen, *cost.products]


def _needs_gradient(entry: Entry | None, layer: int, place: str) -> int:
    """Return 1 if the value at `place` of `layer` needs a gradient in training, otherwise 0."""
    if entry is None:
        return 0
    return int((layer, _PLACES.index(place)) >= (entry.layer, _PLACES.index(entry.place)))


def _vision_products(vision: Any, images: int, blocks: int, entry: Entry | None) -> list[Product]:
    """Return the products of the patch embedding and of the first `blocks` blocks; none if `blocks` is 0."""
    if not blocks:
        return []
    width, patches = vision.width, vision.num_patches
    tokens = patches + 1
    rows = images * tokens
    hidden = next(m for name, m in vision.blocks[0].named_modules() if name.endswith("c_fc")).out_features
    pixels = vision.visual.conv1.weight[0].numel()
    products = [matmul("clip.patch_embedding", images * patches, pixels, width, gradients=0)]
    for block in range(blocks):
        at_input, at_attention = _needs_gradient(entry, block, "input"), _needs_gradient(entry, block, "attention")
        products += [
            matmul("clip.attention", rows, width, 3 * width, gradients=at_input),
            matmul("clip.attention_scores", 2 * images * tokens, width, tokens, gradients=2 * at_input),
            matmul("clip.attention", rows, width, width, gradients=at_input),
            matmul("clip.ffn", 2 * rows, width, hidden, gradients=at_attention),
        ]
    return products


def _llm_products(config: Any, samples: int, tokens: int, keys: int, read: int, entry: Entry) -> list[Product]:
    """Return the products of the frozen decoder layers, where `tokens` columns per sample attend to `keys` columns.

    The last layer has keys and values of all these columns, but queries, output and FFN of `read` columns alone.
    """
    width = config.hidden_size
    head_dim = getattr(config, "head_dim", None) or width // config.num_attention_heads
    queries, shared = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    products = [Product("llm.embedding", 0, 0)]
    for layer in range(config.num_hidden_layers):
        at_input, at_attention = _needs_gradient(entry, layer, "input"), _needs_gradient(entry, layer, "attention")
        rows = samples * (read if layer == config.num_hidden_layers - 1 else tokens)
        products += [
            matmul("llm.attention", samples * tokens, width, 2 * shared, gradients=at_input),
            matmul("llm.attention", rows, width, queries, gradients=at_input),
            matmul("llm.attention_scores", 2 * rows, queries, keys, gradients=2 * at_input),
            matmul("llm.attention", rows, queries, width, gradients=at_attention),
            matmul("llm.ffn", 3 * rows, width, config.intermediate_size, gradients=at_attention),
        ]
    return products


def _head(backbone: Backbone, rows: int) -> Product:
    """Return the product of the output layer, which gives the logits of `rows` tokens."""
    config = backbone.llm.config
    return matmul("llm.lm_head", rows, config.hidden_size, config.vocab_size, gradients=1)
