"""Every method under gradient checkpointing, half precision, eager attention and `torch.compile`."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from methods import registry, tuned
from methods.tuned import TunedModel
from tests.backbones import random_batch, tiny_backbone, tuned_model

methods = pytest.mark.parametrize("name", registry())


def loss_and_gradients(model: TunedModel, **batch: Any) -> tuple[Tensor, list[Tensor]]:
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
def test_half_precision_backbone_grouped_queries_and_tied_embeddings(name: str) -> None:
    sizes: dict[str, Any] = {"num_kv_heads": 2, "tie": True}
    half = tuned_model(name, tiny_backbone(dtype=torch.bfloat16, **sizes))
    kept = {name: value.clone() for name, value in half.llm.state_dict().items()}
    seen = set()
    for layer in half.llm.model.layers:
        layer.register_forward_hook(lambda *args: seen.add(args[2].dtype))
    loss, gradients = loss_and_gradients(half, padding="left")
    # The residual stream stays in the backbone's dtype, the method's own parameters in float32.
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in half.method.parameters()} == {g.dtype for g in gradients} == {torch.float32}
    full, _ = loss_and_gradients(tuned_model(name, tiny_backbone(**sizes)), padding="left")
    assert abs(loss - full) < 0.02
    assert all(torch.equal(value, kept[name]) for name, value in half.llm.state_dict().items())


@methods
def test_eager_attention_gives_the_same_loss_and_the_same_decoding(name: str) -> None:
    model = tuned_model(name)
    expected, gradients = loss_and_gradients(model, padding="left")
    prompt = replace(random_batch(model.backbone, padding="left"), labels_BL=None)
    decoded = two_steps(model, prompt)
    model.llm.set_attn_implementation("eager")
    loss, eager_gradients = loss_and_gradients(model, padding="left")
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(eager_gradients, gradients, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(two_steps(model, prompt), decoded, atol=2e-5, rtol=1e-4)


def two_steps(model: TunedModel, prompt: Any) -> Tensor:
    with torch.no_grad():
        first, state = model.prefill(prompt)
        return torch.stack([first, model.step(first.argmax(-1), state)])


@methods
def test_the_whole_language_model_compiles_into_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No method breaks the graph anywhere: not in training, and not in decoding."""
    model = tuned_model(name, tiny_backbone(num_layers=4))
    prompt = replace(random_batch(model.backbone, padding="left"), labels_BL=None)
    expected, decoded = loss_and_gradients(model, padding="right"), two_steps(model, prompt)
    torch._dynamo.reset()
    monkeypatch.setattr(tuned, "run_decoder", torch.compile(tuned.run_decoder, backend="eager", fullgraph=True))
    torch.testing.assert_close(loss_and_gradients(model, padding="right"), expected)
    torch.testing.assert_close(two_steps(model, prompt), decoded, atol=1e-5, rtol=1e-4)


@methods
def test_half_precision_decodes_as_it_reads_whole_prompts(name: str) -> None:
    model = tuned_model(name, tiny_backbone(dtype=torch.bfloat16, num_kv_heads=2, tie=True))
    whole = replace(random_batch(model.backbone, padding="left"), labels_BL=None)
    columns = whole.input_ids_BL.shape[1] - 1
    short = replace(
        whole, input_ids_BL=whole.input_ids_BL[:, :columns], attention_mask_BL=whole.attention_mask_BL[:, :columns]
    )
    with torch.no_grad():
        expected, _ = model.prefill(whole)
        _, state = model.prefill(short)
        torch.testing.assert_close(model.step(whole.input_ids_BL[:, columns], state), expected, atol=0.05, rtol=0.02)
