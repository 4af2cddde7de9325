"""The formulas of MemVP and DEHVF written out as printed, one sample, one layer and one feature at a time.

The formulas are computed on a new backbone without a method, and on a method's parameters by name. They run no code of
`methods`. `check_logits` compares them with a model.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch
from methods.tuned import TunedModel

Parameters = Mapping[str, Tensor]


def features(vision: Any, image_CHW: Tensor, params: Parameters, config: Any) -> list[Tensor]:
    """Return `ln_post(F_i)` of every block, `(J+1)×C`, with the CLIP adapters beside the FFNs."""
    visual = vision.visual
    x = visual.conv1(image_CHW[None]).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(1, 1, -1), x], dim=1) + visual.positional_embedding
    x = visual.ln_pre(x)
    found = []
    for index, block in enumerate(vision.blocks):
        normed = block.ln_1(x)[0]
        x = x + block.attn(normed, normed, normed, need_weights=False)[0]
        u = block.ln_2(x)
        step = block.mlp(u)
        if f"vision_adapters.{index}.down.weight" in params:
            down, up = (params[f"vision_adapters.{index}.{name}.weight"] for name in ("down", "up"))
            hidden = u @ down.T
            gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
            step = step + config.adapter_scale * gelu @ up.T
        x = x + step
        found.append(visual.ln_post(x)[0])
    return found


def project(x_JC: Tensor, params: Parameters) -> Tensor:
    """Return `W2·SiLU(W1 x + b1) + b2`."""
    hidden = x_JC @ params["memory.projector.down.weight"].T + params["memory.projector.down.bias"]
    hidden = hidden * torch.sigmoid(hidden)
    return hidden @ params["memory.projector.up.weight"].T + params["memory.projector.up.bias"]


def matrix(prompts_ND: Tensor, fused_JC: Tensor | None, ind: int, params: Parameters, config: Any) -> Tensor:
    """Return `λ·ind·[f(V); 0] + P`."""
    rows = torch.zeros_like(prompts_ND)
    if fused_JC is not None:
        rows[: len(fused_JC)] = project(fused_JC, params)
    return config.visual_scale * ind * rows + prompts_ND


def group_of(layer: int, num_layers: int, num_blocks: int, num_groups: int) -> list[int]:
    """Return the blocks, counted from 1, of the visual group that decoder layer `layer` reads."""
    group = layer * num_groups // num_layers
    size = num_blocks // num_groups
    return [group * size + i + 1 for i in range(size)] + [num_blocks - 1]


def query(layer: int, side: int, params: Parameters, config: Any) -> Tensor:
    """Return the query `z_{l,*}`."""
    if config.query == "learnable":
        queries = params["queries.queries"][layer]
        return queries[side if len(queries) > 1 else 0]
    z = params["queries.layer_embedding"][layer]
    if config.separate_queries:
        positions = params["queries.position_embedding"]
        z = torch.cat([z, positions[side if len(positions) > 1 else 0]])
    hidden = F.gelu(params["queries.mlp.0.weight"] @ z + params["queries.mlp.0.bias"])
    return params["queries.mlp.2.weight"] @ hidden + params["queries.mlp.2.bias"]


def fusion_weights(z_R: Tensor, cls_KC: Tensor, params: Parameters, config: Any) -> Tensor:
    """Return the weights `α ∈ R^K` of one query over one group."""
    context_KR = cls_KC @ params["fuser.projection.weight"].T + params["fuser.projection.bias"]
    q = z_R
    for index in range(config.fuser_blocks):
        block = {
            name.removeprefix(f"fuser.blocks.{index}."): value
            for name, value in params.items()
            if name.startswith(f"fuser.blocks.{index}.")
        }
        q = layer_norm(q + cross_attention(q, context_KR, block, config.fuser_heads), block, "attention_norm")
        hidden = F.gelu(block["ffn.0.weight"] @ q + block["ffn.0.bias"])
        q = layer_norm(q + block["ffn.2.weight"] @ hidden + block["ffn.2.bias"], block, "ffn_norm")
    scores = torch.stack([q @ c for c in context_KR]) / len(q) ** 0.5
    return scores.exp() / scores.exp().sum()


def layer_norm(x: Tensor, block: Parameters, name: str) -> Tensor:
    """Return the layer norm of one vector."""
    normed = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
    return normed * block[f"{name}.weight"] + block[f"{name}.bias"]


def cross_attention(q_R: Tensor, context_KR: Tensor, block: Parameters, heads: int) -> Tensor:
    """Return the multi-head attention of one query."""
    weights = block["attention.in_proj_weight"].chunk(3)
    biases = block["attention.in_proj_bias"].chunk(3)
    q = weights[0] @ q_R + biases[0]
    k = context_KR @ weights[1].T + biases[1]
    v = context_KR @ weights[2].T + biases[2]
    width = len(q) // heads
    out = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        attention = (k[:, part] @ q[part] / width**0.5).softmax(dim=0)
        out.append(attention @ v[:, part])
    return block["attention.out_proj.weight"] @ torch.cat(out) + block["attention.out_proj.bias"]


def fused(layer: int, side: int, found: list[Tensor], num_layers: int, params: Parameters, config: Any) -> Tensor:
    """Return `V_{l,*}`, `J×C`, the fused patch features of one layer and side."""
    fusion = getattr(config, "fusion", "penultimate")
    if fusion == "penultimate":
        return found[-2][1:]
    group = [found[block - 1] for block in group_of(layer, num_layers, len(found), config.num_groups)]
    if fusion == "mean":
        return sum(feature[1:] for feature in group) / len(group)
    cls_KC = torch.stack([feature[0] for feature in group])
    alpha = fusion_weights(query(layer, side, params, config), cls_KC, params, config)
    return sum(weight * feature[1:] for weight, feature in zip(alpha, group, strict=True))


def memories(
    backbone: Any, image_CHW: Tensor, ind: int, params: Parameters, config: Any
) -> list[tuple[Tensor, Tensor]]:
    """Return `(K_l, V_l)` of every decoder layer, `N×D` each."""
    sides = {"both": (0, 1), "keys": (0,), "values": (1,)}[getattr(config, "prompts_in", "both")]
    if getattr(config, "fusion", "") == "none":
        sides = ()
    found = features(backbone.vision, image_CHW, params, config)
    prompts = params["memory.prompts.keys"], params["memory.prompts.values"]
    built = []
    for layer in range(backbone.num_layers):
        visual = [fused(layer, s, found, backbone.num_layers, params, config) if s in sides else None for s in (0, 1)]
        keys, values = (matrix(p, v, ind, params, config) for p, v in zip(prompts, visual, strict=True))
        built.append((keys, values))
    return built


def logits(backbone: Any, ids_L: Tensor, image_CHW: Tensor, ind: int, params: Parameters, config: Any) -> Tensor:
    """Return the logits of one sample without padding, `L×V`: `FFN'(x) = FFN(x) + s·SiLU(x Kᵀ) V` in every layer."""
    model = backbone.llm.model
    h = model.embed_tokens(ids_L)[None]
    rotary = model.rotary_emb(h, position_ids=torch.arange(len(ids_L))[None])
    causal = torch.full((len(ids_L), len(ids_L)), float("-inf")).triu(1)[None, None]
    for layer, (keys, values) in zip(model.layers, memories(backbone, image_CHW, ind, params, config), strict=True):
        x = layer.input_layernorm(h)
        h = h + layer.self_attn(x, attention_mask=causal, position_embeddings=rotary)[0]
        u = layer.post_attention_layernorm(h)
        scores = u @ keys.T
        h = h + layer.mlp(u) + config.memory_scale * (scores * torch.sigmoid(scores)) @ values
    return backbone.llm.lm_head(model.norm(h))[0]


def check_logits(model: TunedModel, bare: Any, batch: Batch) -> None:
    """Check the logits of every sample of a batch against the printed formula.

    Args:
        model: a backbone with MemVP or DEHVF.
        bare: an equal backbone without a method.
        batch: the samples.
    """
    params, config = dict(model.method.named_parameters()), model.method.config
    with torch.no_grad():
        found = model.logits(batch)
        for sample, (image, ind) in enumerate(zip(batch.images_BCHW, batch.has_image_B, strict=True)):
            real = batch.attention_mask_BL[sample]
            expected = logits(bare, batch.input_ids_BL[sample, real], image, int(ind), params, config)
            torch.testing.assert_close(found[sample, real], expected, atol=5e-5, rtol=1e-4)
