"""Shared weights: no tensor twice, and methods side by side compute what they compute alone."""

import pytest
import torch

from harness.cost.share import share_backbone
from methods import registry
from tests.backbones import random_batch, tiny_backbone, tuned_model


def tensors(backbone):
    return {
        f"{part}.{name}": tensor
        for part in ("llm", "vision")
        for name, tensor in getattr(backbone, part).state_dict(keep_vars=True).items()
    }


@pytest.mark.parametrize("tie", [False, True])
def test_every_frozen_tensor_is_the_same_and_no_module_is(tie):
    backbone = tiny_backbone(tie=tie)
    shared = share_backbone(backbone)
    ours, theirs = tensors(backbone), tensors(shared)
    assert ours.keys() == theirs.keys()
    assert all(theirs[name] is tensor for name, tensor in ours.items())
    assert shared.llm.model.rotary_emb.inv_freq is backbone.llm.model.rotary_emb.inv_freq
    modules = {id(module) for part in backbone.modules() for module in part.modules()}
    assert not any(id(module) in modules for part in shared.modules() for module in part.modules())


def test_methods_side_by_side_compute_what_they_compute_alone():
    backbone = tiny_backbone()
    batch = random_batch(backbone, 3, 10)
    together = {name: tuned_model(name, share_backbone(backbone)) for name in registry()}
    frozen = {id(tensor) for tensor in tensors(backbone).values()}
    for name, model in together.items():
        alone = tuned_model(name)
        for one in (model, alone):
            one(batch).backward()
        own = dict(model.method.named_parameters())
        assert not frozen & {id(parameter) for parameter in own.values()}
        with torch.no_grad():
            torch.testing.assert_close(model.logits(batch), alone.logits(batch), rtol=0, atol=0)
        for parameter_name, parameter in alone.method.named_parameters():
            torch.testing.assert_close(own[parameter_name].grad, parameter.grad, rtol=0, atol=0)
    # The backbone itself has no method attached still, and no gradient.
    with torch.no_grad():
        fresh = tiny_backbone().llm(input_ids=batch.input_ids_BL).logits
        assert torch.equal(backbone.llm(input_ids=batch.input_ids_BL).logits, fresh)
    assert all(tensor.grad is None for tensor in tensors(backbone).values())
