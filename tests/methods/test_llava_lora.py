"""LLaVA-LoRA: the zero-initialised update, the visual tokens, and what is trained."""

from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from methods.llava_lora import LLaVALoRA
from methods.tuned import TunedModel
from tests.backbones import random_batch, tiny_backbone, tiny_config, tuned_model
from tests.methods.sizes import paper_count, real_size_backbone


def lora_layers(model: TunedModel) -> list[Any]:
    """Return the layers that peft put in place of the target layers."""
    layers = [module for module in model.llm.modules() if isinstance(module, BaseTunerLayer)]
    assert len(layers) == 2 * model.backbone.num_layers
    return layers


def switch_lora(model: TunedModel, enabled: bool) -> None:
    """Turn the low-rank updates of a model on or off."""
    for layer in lora_layers(model):
        layer.enable_adapters(enabled)


def test_zero_initialised_lora_leaves_the_input_space_model_unchanged() -> None:
    model = tuned_model("llava_lora", random=False)
    batch = random_batch(model.backbone, padding="right")
    with torch.no_grad():
        logits = model.logits(batch)
        switch_lora(model, False)
        assert torch.equal(logits, model.logits(batch))


def test_lora_that_is_not_zero_changes_the_logits() -> None:
    model = tuned_model("llava_lora", random=False)
    batch = random_batch(model.backbone, padding="right")
    with torch.no_grad():
        logits = model.logits(batch)
        for matrices in model.method.lora:
            matrices["v_proj"]["up"].weight.normal_(std=0.1)
        assert not torch.equal(logits, model.logits(batch))


@pytest.mark.parametrize("overrides", [{}, {"lora_rank": 3, "lora_alpha": 7.5}])
@pytest.mark.parametrize("target", ["q_proj", "v_proj"])
def test_a_wrapped_layer_computes_the_printed_formula(target: str, overrides: dict[str, Any]) -> None:
    """`W x + (alpha / rank) · B(A x)` for matrices A and B of which none is zero."""
    model = tuned_model("llava_lora", **overrides)
    rank, alpha = overrides.get("lora_rank", 6), overrides.get("lora_alpha", 12.0)
    x_BTD = torch.randn(2, 5, model.backbone.hidden_size, generator=torch.Generator().manual_seed(0))
    for decoder_layer, matrices in zip(model.llm.model.layers, model.method.lora, strict=True):
        layer = getattr(decoder_layer.self_attn, target)
        a_RD, b_OR = matrices[target]["down"].weight, matrices[target]["up"].weight
        assert a_RD.shape[0] == b_OR.shape[1] == rank
        expected = x_BTD @ layer.base_layer.weight.T + alpha / rank * (x_BTD @ a_RD.T @ b_OR.T)
        torch.testing.assert_close(layer(x_BTD), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", [None, "left", "right"])
def test_input_is_bos_visual_tokens_text(padding: Any) -> None:
    model = tuned_model("llava_lora")
    batch = random_batch(model.backbone, padding=padding, has_image=[True, False, True])
    visual = model.encode(batch)
    sequence = model.method.build_sequence(model.backbone, batch, visual)
    assert visual["tokens_BJD"].shape == (3, model.vision.num_patches, 64)
    for row, flag in enumerate(batch.has_image_B.tolist()):
        text = model.llm.model.embed_tokens(batch.input_ids_BL[row, batch.attention_mask_BL[row]])
        between = visual["tokens_BJD"][row] if flag else text[:0]
        expected = torch.cat([text[:1], between, text[1:]])
        torch.testing.assert_close(sequence.inputs_embeds_BTD[row, sequence.key_mask_BT[row]], expected)


def test_text_only_samples_cannot_see_visual_slots() -> None:
    model, bare = tuned_model("llava_lora", random=False), tiny_backbone()
    batch = random_batch(model.backbone, 2, has_image=[True, False])
    visual = dict(model.encode(batch))
    with torch.no_grad():
        before = model.logits(batch, visual)
        visual["tokens_BJD"] = visual["tokens_BJD"] + 3.0
        after = model.logits(batch, visual)
        text = bare.llm(input_ids=batch.input_ids_BL[1:]).logits
    length = batch.input_ids_BL.shape[1]
    assert torch.equal(before[1, -length:], after[1, -length:])
    assert not torch.allclose(before[0, -1], after[0, -1], atol=1e-3)
    torch.testing.assert_close(before[1, -length:], text[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("normalize", [True, False])
def test_visual_tokens_are_projected_penultimate_patches(normalize: bool) -> None:
    model = tuned_model("llava_lora", random=False, normalize_features=normalize)
    batch = random_batch(model.backbone, 2, has_image=(True, True))
    images = batch.images_BCHW
    (feature,) = tiny_backbone().vision.features(images, [7], normalize=normalize)
    visual = model.encode(batch)
    torch.testing.assert_close(visual["tokens_BJD"], model.method.projector(feature[:, 1:]))


def test_the_state_dict_of_the_method_holds_all_that_is_trained() -> None:
    model, other = tuned_model("llava_lora"), tuned_model("llava_lora", seed=2)
    batch = random_batch(model.backbone)
    assert not torch.equal(model.logits(batch), other.logits(batch))
    other.method.load_state_dict(model.method.state_dict())
    assert torch.equal(model.logits(batch), other.logits(batch))


def test_nothing_but_the_method_is_trained() -> None:
    model = tuned_model("llava_lora")
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in model.method.parameters()}


def test_lora_targets_are_those_of_the_config() -> None:
    model = tuned_model("llava_lora", lora_targets=("k_proj", "down_proj"))
    names = {name for name, _ in model.method.lora.named_parameters()}
    assert {name.split(".")[1] for name in names} == {"k_proj", "down_proj"} and len(names) == 16


def test_the_rank_of_lora_is_that_of_the_config() -> None:
    model = tuned_model("llava_lora", lora_targets=("k_proj", "down_proj"), lora_rank=3)
    assert {p.shape[0] for n, p in model.method.lora.named_parameters() if ".down." in n} == {3}


def test_a_target_that_no_layer_has_is_refused() -> None:
    backbone = tiny_backbone()
    with pytest.raises(ValueError, match="no decoder layer has a linear layer 'qq_proj'"):
        LLaVALoRA(backbone, tiny_config(LLaVALoRA, backbone, lora_targets=("qq_proj",)))


def test_published_count() -> None:
    assert paper_count("llava_lora", real_size_backbone("7b")) == 4_395_136


def test_lora_reads_its_input_without_a_float32_copy() -> None:
    model = tuned_model("llava_lora", tiny_backbone(dtype=torch.bfloat16)).eval()
    batch, layers = random_batch(model.backbone), lora_layers(model)
    seen: list[torch.dtype] = []
    for layer in layers:
        layer.lora_A["default"].register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    with torch.no_grad():
        logits = model.logits(batch)
        assert seen == [torch.bfloat16] * len(layers)
        for layer in layers:
            layer.cast_input_dtype_enabled = True
        assert torch.equal(logits, model.logits(batch))
