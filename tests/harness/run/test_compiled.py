"""A model compiled by regions computes the same as before."""

from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from harness.run.compiled import compiled_regions
from methods import registry
from tests.backbones import random_batch, tiny_backbone, tuned_model


@pytest.fixture
def eager_graphs(monkeypatch):
    """Compile without generating code, and without interrupting a function that a method declares."""
    compile_ = torch.compile

    def compile_eagerly(function):
        declared = function.__name__ in getattr(getattr(function, "__self__", None), "compiled_regions", ())
        return compile_(function, backend="eager", fullgraph=declared)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    torch._dynamo.reset()


def decoded(model, prompt):
    """Logits after the prompt and of two more tokens."""
    with torch.no_grad():
        logits, state = model.prefill(prompt)
        found = [logits]
        for _ in range(2):
            found.append(model.step(found[-1].argmax(dim=-1), state))
    return torch.stack(found)


@pytest.mark.slow
def test_a_run_compiles_its_own_graphs(eager_graphs):
    model = tuned_model("memvp", tiny_backbone()).eval()
    made = []
    for _ in range(2):
        before = counters["stats"]["unique_graphs"]
        with compiled_regions(model), torch.no_grad():
            model(random_batch(model.backbone, 3, 12, padding="right"))
        made.append(counters["stats"]["unique_graphs"] - before)
    assert made[0] == made[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", registry())
def test_a_compiled_model_computes_the_same(name, eager_graphs):
    backbone = tiny_backbone()
    model = tuned_model(name, backbone).eval()
    batch = random_batch(backbone, 3, 12, padding="left", has_image=(True, False, True))
    prompt = replace(batch, labels_BL=None)
    loss, logits = model(batch), decoded(model, prompt)
    loss.backward()
    gradients = [parameter.grad for parameter in model.method.parameters()]
    model.zero_grad(set_to_none=True)
    names = [name for name, _ in model.named_parameters()]
    with compiled_regions(model):
        torch.testing.assert_close(decoded(model, prompt), logits)
        again = model(batch)
        again.backward()
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close([parameter.grad for parameter in model.method.parameters()], gradients)
    # Behind the context, the model is what it was, and it runs without compiled code.
    assert [name for name, _ in model.named_parameters()] == names
    torch.testing.assert_close(decoded(model, prompt), logits)
    assert not any(getattr(module, "_compiled_call_impl", None) for module in model.modules())
