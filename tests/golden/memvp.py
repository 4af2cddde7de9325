"""Compare MemVP with the figures of the published code."""

from dataclasses import replace

import torch

from methods.base import IGNORE_INDEX, Batch
from methods.memvp import MemVP
from methods.tuned import TunedModel
from tests.golden.published import Comparison, GoldenSet, cut_at, greedy, left_padded, load_renamed, published_backbone


def check(golden: GoldenSet) -> Comparison:
    """Compare logits, loss, gradients and greedy tokens."""
    model = build(golden)
    result = Comparison()
    batch = training_batch(golden)
    result.add_logits(model.logits(batch), golden.tensors["out/logits"])
    loss = model(batch)
    loss.backward()
    result.add_loss(loss, golden.tensors["out/loss"])
    names = published_names(model.method)
    ours = {names[name]: parameter.grad for name, parameter in model.method.named_parameters()}
    result.add_gradients(ours, golden.under("grad/"))
    text_only = replace(batch, has_image_B=torch.zeros_like(batch.has_image_B))
    with torch.no_grad():
        result.add_loss(model(text_only), golden.meta["loss_all_indicators_zero"])
    _check_decoding(model, golden, result)
    return result


def build(golden: GoldenSet) -> TunedModel:
    """Load the published weights into this project's modules."""
    config = golden.meta["config"]
    backbone = published_backbone(golden, "backbone.visual.")
    method = MemVP(
        backbone,
        MemVP.Config(
            memory_length=config["emb"],
            projector_dim=config["hidden_proj"],
            visual_scale=config["visual_prompt_scale"],
            memory_scale=config["adapter_scale"],
            adapter_dim=config["adapter_dim"],
            adapter_scale=config["clip_adapter_scale"],
        ),
    )
    load_renamed(method, golden, published_names(method))
    return TunedModel(backbone, method).eval()


def published_names(method: torch.nn.Module) -> dict[str, str]:
    """Return a mapping from the name of each parameter here to its name in the published code."""
    names = {"memory.prompts.keys": "adapter_emb1", "memory.prompts.values": "adapter_emb2"}
    for ours, theirs in {"down": "fc1", "up": "fc2"}.items():
        for kind in ("weight", "bias"):
            names[f"memory.projector.{ours}.{kind}"] = f"adapter_proj.{theirs}.{kind}"
        for block in range(len(method.get_submodule("vision_adapters")._modules)):
            published = f"backbone.visual.transformer.resblocks.{block}.adapter_mlp.{theirs}.weight"
            names[f"vision_adapters.{block}.{ours}.weight"] = published
    return names


def training_batch(golden: GoldenSet) -> Batch:
    """Return the batch of the set, cut after its last labelled column, as in the published code.

    In the published code, label 0 marks both padding and unlabelled columns, and only causality masks the padding.
    """
    tensors = golden.tensors
    length = tensors["out/logits"].shape[1]
    ids, labels = tensors["in/tokens"][:, :length], tensors["in/labels"][:, :length]
    return Batch(
        input_ids_BL=ids,
        attention_mask_BL=torch.ones_like(ids, dtype=torch.bool),
        labels_BL=labels.masked_fill(labels == 0, IGNORE_INDEX),
        images_BCHW=tensors["in/images"],
        has_image_B=tensors["in/indicators"].bool(),
    )


def _check_decoding(model: TunedModel, golden: GoldenSet, result: Comparison) -> None:
    generation = golden.meta["generation"]
    prompts = [[generation["bos"], *prompt] for prompt in generation["prompts_without_bos"]]
    ids, mask = left_padded(prompts)
    has_image = torch.tensor(generation["indicators"], dtype=torch.bool)
    batch = Batch(ids, mask, None, golden.tensors["in/images"], has_image)
    tokens, logits = greedy(model, batch, generation["max_gen_len"])
    result.add_logits(logits, golden.tensors["gen/step_logits"])
    result.add_tokens(cut_at(tokens, generation["eos"]), generation["new_tokens_cut_at_eos"])
