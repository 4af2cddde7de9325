"""Compare the language side of LLaMA-Adapter with the figures of the published code.

The multimodal set (`llama_adapter`) comes from other code than the paper's ScienceQA run, with another image branch and
no has-image flag. Its stored image features are therefore the input here, and gradients are compared down to them. The
text-only set (`llama_adapter_v1text`) is compared as a whole.
"""

import torch
from torch import Tensor

from methods.base import IGNORE_INDEX, Batch, VisualFeatures
from methods.llama_adapter import LLaMAAdapter
from methods.tuned import TunedModel
from tests.backbones import assemble, tiny_backbone
from tests.golden.published import Comparison, GoldenSet, cut_at, greedy, left_padded, llama_from_published


def check(golden: GoldenSet) -> Comparison:
    """Compare logits, loss, gradients of gates, prompts and image features, and greedy tokens if the set has them."""
    model = build(golden)
    result = Comparison()
    ids, labels = golden.tensors["in/tokens"], golden.tensors["in/labels"]
    batch = _batch(model, ids, torch.ones_like(ids, dtype=torch.bool), labels.masked_fill(labels == 0, IGNORE_INDEX))
    visual = _visual(golden, batch)
    result.add_logits(model.logits(batch, visual), golden.tensors["out/logits"])
    loss = model(batch, visual)
    loss.backward()
    result.add_loss(loss, golden.tensors["out/loss"])
    result.add_gradients(_gradients(model.method, visual), _published_gradients(golden))
    if "generation" in golden.meta:
        _check_decoding(model, golden, result)
    return result


def build(golden: GoldenSet) -> TunedModel:
    """Load the published weights into this project's modules. The image branch keeps its random weights."""
    weights = golden.under(f"w/{_prefix(golden)}")
    llm = llama_from_published(weights, golden.meta["config"]["llama"])
    backbone = assemble(llm, tiny_backbone().vision)
    config = golden.meta["config"]
    layers = config.get("query_layer", config.get("adapter_layer"))
    length = config.get("query_len", config.get("adapter_len"))
    method = LLaMAAdapter(backbone, LLaMAAdapter.Config(num_prompts=length, num_adapter_layers=layers))
    with torch.no_grad():
        method.prompts_YKD.copy_(golden.tensors["w/adapter_query.weight"].view_as(method.prompts_YKD))
        for gate_N, layer in zip(method.gates_YN, _adapted(golden), strict=True):
            gate_N.copy_(weights[f"layers.{layer}.attention.gate"].flatten())
    return TunedModel(backbone, method).eval()


def _prefix(golden: GoldenSet) -> str:
    return "llama." if "w/llama.norm.weight" in golden.tensors else ""


def _adapted(golden: GoldenSet) -> range:
    config = golden.meta["config"]
    count, layers = config.get("query_layer", config.get("adapter_layer")), config["llama"]["n_layers"]
    return range(layers - count, layers)


def _batch(model: TunedModel, ids: Tensor, mask: Tensor, labels: Tensor | None) -> Batch:
    size = model.backbone.vision.image_size
    return Batch(ids, mask, labels, torch.zeros(len(ids), 3, size, size), torch.ones(len(ids), dtype=torch.bool))


def _visual(golden: GoldenSet, batch: Batch) -> VisualFeatures:
    """Return the stored image features, one for each prompt; zeros for the text-only set."""
    width = golden.meta["config"]["llama"]["dim"]
    stored = golden.tensors.get("out/visual_query", torch.zeros(len(batch.input_ids_BL), 1, width))
    return {"image_BKD": stored.clone().requires_grad_(), "has_image_B": batch.has_image_B}


def _gradients(method: LLaMAAdapter, visual: VisualFeatures) -> dict[str, Tensor | None]:
    assert method.prompts_YKD.grad is not None and method.gates_YN.grad is not None
    return {
        "prompts": method.prompts_YKD.grad.flatten(0, 1),
        **{f"gate {index}": gate_N for index, gate_N in enumerate(method.gates_YN.grad)},
        **({"image": visual["image_BKD"].grad} if visual["image_BKD"].shape[1] > 1 else {}),
    }


def _published_gradients(golden: GoldenSet) -> dict[str, Tensor]:
    prefix, found = _prefix(golden), {"prompts": golden.tensors["grad/adapter_query.weight"]}
    for index, layer in enumerate(_adapted(golden)):
        found[f"gate {index}"] = golden.tensors[f"grad/{prefix}layers.{layer}.attention.gate"].flatten()
    if "grad_act/visual_query" in golden.tensors:
        found["image"] = golden.tensors["grad_act/visual_query"]
    return found


def _check_decoding(model: TunedModel, golden: GoldenSet, result: Comparison) -> None:
    """Compare the decoded tokens and their logits.

    The published code decodes all samples from the end of the shortest prompt on, and feeds the rest of longer prompts
    token by token. The logits of a sample are therefore compared from the end of its own prompt on.
    """
    generation = golden.meta["generation"]
    prompts = [[generation["bos"], *prompt] for prompt in generation["prompts_without_bos"]]
    batch = _batch(model, *left_padded(prompts), None)
    steps = generation["max_gen_len"]
    tokens, logits = greedy(model, batch, steps, _visual(golden, batch))
    for row, prompt in enumerate(prompts):
        first = len(prompt) - generation["start_pos"]
        published = golden.tensors["gen/step_logits"][row, first : first + steps]
        result.add_logits(logits[row, : len(published)], published)
    result.add_tokens(cut_at(tokens, generation["eos"]), generation["new_tokens_cut_at_eos"])
