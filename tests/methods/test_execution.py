"""Every method under gradient checkpointing, half precision, eager attention and `torch.compile`."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from methods import registry, tuned
from methods.tuned import TunedModel
from tests.backbones import random_batch, tiny_backbone, tuned_model
from tests.methods.probes import greedy_logits, prompts

methods = pytest.mark.parametrize("name", registry())
GROUPED: dict[str, Any] = {"num_kv_heads": 2, "tie": True}
"""Sizes of a backbone with grouped queries and tied embeddings."""


def loss_and_gradients(model: TunedModel, **batch: Any) -> tuple[Tensor, list[Tensor]]:
    """Return the loss of a random batch, and the gradients of the method's parameters."""
    model.zero_grad()
    torch.manual_seed(3)
    loss = model(random_batch(model.backbone, **batch))
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in model.method.parameters()]


@methods
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    model = tuned_model(name).train()
    expected = loss_and_gradients(model, padding="right")
    model.llm.gradient_checkpointing_enable({"use_reentrant": False})
    assert all(layer.gradient_checkpointing for layer in model.llm.model.layers)
    torch.testing.assert_close(loss_and_gradients(model, padding="right"), expected)


@methods
def test_half_precision_keeps_the_dtypes_and_the_frozen_weights(name: str) -> None:
    """The residual stream stays in the backbone's dtype, and the method's own parameters stay in float32."""
    half = tuned_model(name, tiny_backbone(dtype=torch.bfloat16, **GROUPED))
    kept = {name: value.clone() for name, value in half.llm.state_dict().items()}
    seen = set()
    for layer in half.llm.model.layers:
        layer.register_forward_hook(lambda *args: seen.add(args[2].dtype))
    _, gradients = loss_and_gradients(half, padding="left")
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in half.method.parameters()} == {g.dtype for g in gradients} == {torch.float32}
    assert all(torch.equal(value, kept[name]) for name, value in half.llm.state_dict().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@methods
def test_half_precision_keeps_its_dtype_on_a_gpu(name: str) -> None:
    """Autocast gives more operations in float32 there than on a CPU."""
    backbone = tiny_backbone(dtype=torch.bfloat16, **GROUPED)
    for module in backbone.modules():
        module.cuda()
    half = tuned_model(name, backbone)
    half.method.cuda()
    seen = set()
    for layer in half.llm.model.layers:
        layer.register_forward_hook(lambda *args: seen.add(args[2].dtype))
    half(random_batch(backbone, padding="left").to("cuda")).backward()
    assert seen == {torch.bfloat16}


@methods
def test_half_precision_gives_nearly_the_same_loss(name: str) -> None:
    half, full = (
        loss_and_gradients(tuned_model(name, tiny_backbone(dtype=dtype, **GROUPED)), padding="left")[0]
        for dtype in (torch.bfloat16, torch.float32)
    )
    assert abs(half - full) < 0.02


@methods
def test_eager_attention_gives_the_same_loss_and_gradients(name: str) -> None:
    model = tuned_model(name)
    expected, gradients = loss_and_gradients(model, padding="left")
    model.llm.set_attn_implementation("eager")
    loss, eager_gradients = loss_and_gradients(model, padding="left")
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(eager_gradients, gradients, atol=1e-5, rtol=1e-4)


@methods
def test_eager_attention_decodes_the_same(name: str) -> None:
    model = tuned_model(name)
    prompt = replace(random_batch(model.backbone, padding="left"), labels_BL=None)
    decoded = greedy_logits(model, prompt, 2)
    model.llm.set_attn_implementation("eager")
    torch.testing.assert_close(greedy_logits(model, prompt, 2), decoded, atol=2e-5, rtol=1e-4)


@pytest.mark.slow
@methods
def test_the_whole_language_model_compiles_into_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No method breaks the graph, neither in training nor in decoding."""
    model = tuned_model(name, tiny_backbone(num_layers=4))
    prompt = replace(random_batch(model.backbone, padding="left"), labels_BL=None)
    expected, decoded = loss_and_gradients(model, padding="right"), greedy_logits(model, prompt, 2)
    torch._dynamo.reset()
    monkeypatch.setattr(tuned, "run_decoder", torch.compile(tuned.run_decoder, backend="eager", fullgraph=True))
    torch.testing.assert_close(loss_and_gradients(model, padding="right"), expected)
    torch.testing.assert_close(greedy_logits(model, prompt, 2), decoded, atol=1e-5, rtol=1e-4)


@methods
def test_half_precision_decodes_as_it_reads_whole_prompts(name: str) -> None:
    model = tuned_model(name, tiny_backbone(dtype=torch.bfloat16, **GROUPED))
    whole = replace(random_batch(model.backbone, padding="left"), labels_BL=None)
    with torch.no_grad():
        expected, _ = model.prefill(whole)
        _, state = model.prefill(prompts(whole))
        torch.testing.assert_close(model.step(whole.input_ids_BL[:, -1], state), expected, atol=0.05, rtol=0.02)
