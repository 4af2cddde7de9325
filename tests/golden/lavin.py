"""Compare LaVIN with the figures of the published code.

In the published code, sample 0 routes the CLIP adapters of the whole batch (see `methods.lavin`). Whole samples are
therefore compared one at a time. The batch and its gradients are compared on the language side alone, from the stored
CLIP features. Decoding differs on purpose and is not compared.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from methods.adapters import RoutedAdapter
from methods.base import IGNORE_INDEX, Batch, VisualFeatures
from methods.lavin import LaVIN
from methods.tuned import TunedModel
from tests.backbones import rows
from tests.golden.published import Comparison, GoldenSet, published_backbone

VISION = "backbone.visual.transformer.resblocks."


class PrefixTokenizer:
    """A tokenizer that knows the two prefixes alone, by the ids that the set gives them."""

    def __init__(self, ids: Mapping[str, list[int]]) -> None:
        self.ids = ids

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Return the ids of a prefix."""
        assert not add_special_tokens
        return self.ids[text]


def check(golden: GoldenSet) -> Comparison:
    """Compare each sample alone with its image, and the batch from stored CLIP features with its gradients."""
    model = build(golden)
    result = Comparison()
    batch = training_batch(golden)
    for row, expected in enumerate(golden.meta["loss_batch1"]):
        alone = rows(batch, [row])
        with torch.no_grad():
            visual = model.encode(alone)
            result.add_loss(model(alone, visual), expected)
        _add_logits(result, model, alone, visual, golden.tensors[f"solo{row}/logits"])
    tokens_BND = model.method.projector(golden.tensors["out/clip_features"])
    visual = {"tokens_BND": tokens_BND, "has_image_B": batch.has_image_B}
    _add_logits(result, model, batch, visual, golden.tensors["out/logits"])
    loss = model(batch, visual)
    loss.backward()
    result.add_loss(loss, golden.tensors["out/loss"])
    own = {name: p.grad for name, p in model.method.named_parameters() if p.grad is not None}
    ours = published_tensors(model.method, own)
    theirs = {name: value for name, value in golden.under("grad/").items() if not name.startswith(VISION)}
    result.add_gradients(ours, theirs)
    return result


def _add_logits(
    result: Comparison, model: TunedModel, batch: Batch, visual: VisualFeatures, expected_BTV: Tensor
) -> None:
    """Compare the logits of real columns.

    Here, unused columns stand behind the modality token; in the published code, they stand at the end.
    """
    with torch.no_grad():
        real_BT = model.method.build_sequence(model.backbone, batch, visual).key_mask_BT.clone()
        real_BT[:, 0] = True
        logits_BTV = model.logits(batch, visual)
    for ours_TV, real_T, expected_TV in zip(logits_BTV, real_BT, expected_BTV, strict=True):
        result.add_logits(ours_TV[real_T], expected_TV[: int(real_T.sum())])


def build(golden: GoldenSet) -> TunedModel:
    """Load the published weights into this project's modules."""
    config = golden.meta["config"]
    tokenizer = PrefixTokenizer(golden.meta["generation"]["prefix_tokens"])
    backbone = replace(published_backbone(golden, "backbone.visual."), tokenizer=tokenizer)
    method = LaVIN(
        backbone,
        LaVIN.Config(
            projector_dim=config["hidden_proj"],
            adapter_dim=config["adapter_dim"],
            adapter_groups=config["groups"],
            adapter_scale=config["adapter_scale"],
            temperature=config["router_temperature"],
            max_length=golden.tensors["out/logits"].shape[1],
        ),
    )
    own = published_tensors(method, dict(method.named_parameters()))
    trained = golden.meta["trainable"]
    assert own.keys() == set(trained), own.keys() ^ set(trained)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(golden.tensors[f"w/{name}"].reshape(parameter.shape))
    return TunedModel(backbone, method).eval()


def published_tensors(method: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the method's tensors (parameters or their gradients) under their published names, as views."""
    renamed = {"modality_ED": "adapter_modality_embedding.weight"}
    for ours, theirs in {"down": "conv_A", "up": "conv_B"}.items():
        renamed |= {f"projector.{ours}.{kind}": f"adapter_proj.{theirs}.{kind}" for kind in ("weight", "bias")}
    found = {renamed[name]: tensor for name, tensor in tensors.items() if name in renamed}
    for path, module in method.named_modules():
        if isinstance(module, RoutedAdapter) and f"{path}.up_EGOA" in tensors:
            side, index = path.split(".")
            prefix = f"layers.{index}" if side == "adapters" else f"{VISION}{index}"
            views = _adapter_views({name: tensors[f"{path}.{name}"] for name, _ in module.named_parameters()})
            found |= {f"{prefix}.adapter_attn.{name}": view for name, view in views.items()}
    return found


def _adapter_views(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    views = {
        "conv_A.weight": own["down.weight"],
        "conv_A.bias": own["down.bias"],
        "expert_weights.weight": own["router.weight"],
        "expert_weights.bias": own["router.bias"],
    }
    for expert, name in enumerate(("conv_B", "conv_D")):
        views[f"{name}.weight"] = own["up_EGOA"][expert].flatten(0, 1)
        views[f"{name}.bias"] = own["up_bias_EC"][expert]
    return views


def training_batch(golden: GoldenSet) -> Batch:
    """Return the batch of the set. In the published code, label 0 marks both padding and unlabelled columns."""
    ids, labels = golden.tensors["in/tokens"], golden.tensors["in/labels"]
    return Batch(
        input_ids_BL=ids,
        attention_mask_BL=ids != 0,
        labels_BL=labels.masked_fill(labels == 0, IGNORE_INDEX),
        images_BCHW=golden.tensors["in/images"],
        has_image_B=golden.tensors["in/indicators"].bool(),
    )
