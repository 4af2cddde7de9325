"""Every method on a language model whose linear layers are quantised: what it trains, how it decodes, what stays."""

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("bitsandbytes", reason="the extra `quantize` is not installed")

from harness.backbone.quantised import mark_quantised, quantise_layer
from harness.run.parameters import count_parameters
from methods import get_method, registry
from methods.tuned import TunedModel
from tests.backbones import random_batch, tiny_backbone, tuned_model
from tests.methods.probes import greedy_logits
from tests.methods.test_execution import loss_and_gradients

GROUPED: dict[str, Any] = {"num_kv_heads": 2}
quantised = pytest.mark.parametrize("quantize", ["8bit", "4bit"])
methods = pytest.mark.parametrize("name", registry())


def tuned(name: str, quantize: str | None, dtype: torch.dtype = torch.float32) -> TunedModel:
    """Return a method on a small backbone, quantised or not; equal arguments give equal weights."""
    backbone = tiny_backbone(dtype=dtype, **GROUPED)
    if quantize is not None:
        for layer in backbone.llm.model.layers:
            quantise_layer(layer, quantize)
        mark_quantised(backbone.llm, quantize)
    return tuned_model(name, backbone)


@quantised
@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_parameter_is_trained_in_float32_and_the_packed_weights_stay(
    name: str, quantize: str, dtype: torch.dtype
) -> None:
    model = tuned(name, quantize, dtype).train()
    kept = {name: value.clone() for name, value in model.llm.state_dict().items()}
    seen = set()
    for layer in model.llm.model.layers:
        layer.register_forward_hook(lambda *args: seen.add(args[2].dtype))
    _, gradients = loss_and_gradients(model, padding="left")
    assert seen == {dtype}
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    after = model.llm.state_dict()
    assert after.keys() >= kept.keys() and all(torch.equal(value, after[name]) for name, value in kept.items())


@quantised
@methods
def test_the_loss_is_nearly_that_of_the_same_model_before(name: str, quantize: str) -> None:
    """In evaluation mode, without dropout; the weights of this backbone are large, so the limit is wide."""
    losses = [loss_and_gradients(tuned(name, kind), padding="left")[0].item() for kind in (None, quantize)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@quantised
@methods
def test_training_goes_on_behind_an_evaluation(name: str, quantize: str) -> None:
    """bitsandbytes may repack weights in evaluation mode, and products with those have no gradient."""
    model = tuned(name, quantize).train()
    expected = loss_and_gradients(model)
    with torch.no_grad():
        greedy_logits(model.eval(), replace(random_batch(model.backbone, padding="left"), labels_BL=None), 2)
    torch.testing.assert_close(loss_and_gradients(model.train()), expected)


@methods
def test_decoding_in_4_bits_equals_the_whole_forward_pass(name: str) -> None:
    """Not so in 8 bits, where activations are quantised by what else is in the batch."""
    model = tuned(name, "4bit")
    whole = replace(random_batch(model.backbone, padding="left"), labels_BL=None)
    cut = replace(whole, input_ids_BL=whole.input_ids_BL[:, :-1], attention_mask_BL=whole.attention_mask_BL[:, :-1])
    with torch.no_grad():
        expected, _ = model.prefill(whole)
        _, state = model.prefill(cut)
        torch.testing.assert_close(model.step(whole.input_ids_BL[:, -1], state), expected, atol=2e-5, rtol=1e-4)


@quantised
@methods
def test_gradient_checkpointing_changes_nothing(name: str, quantize: str) -> None:
    model = tuned(name, quantize).train()
    expected = loss_and_gradients(model, padding="right")
    model.llm.gradient_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(loss_and_gradients(model, padding="right"), expected)


@quantised
@methods
def test_parameters_are_counted_as_before(name: str, quantize: str) -> None:
    """Packed weights have fewer elements than values."""
    before, packed = (count_parameters(m.backbone, m.method) for m in (tuned(name, None), tuned(name, quantize)))
    assert packed == before and get_method(name).name == name
