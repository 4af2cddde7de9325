"""Shared weights: no tensor twice, and methods side by side compute what they compute alone."""

import pytest
import torch

from harness.cost.share import share_backbone
from methods import registry
from methods.cache_keyword import CACHE_KEYWORD
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


def test_repeated_layers_share_their_weights_and_compute_the_deeper_model():
    backbone = tiny_backbone(num_layers=2)
    deep = share_backbone(backbone, repeat=2)
    assert (backbone.num_layers, deep.num_layers) == (2, 4)
    assert {id(p) for p in deep.llm.parameters()} == {id(p) for p in backbone.llm.parameters()}
    built = tiny_backbone(num_layers=4)
    for index, layer in enumerate(built.llm.model.layers):
        layer.load_state_dict(backbone.llm.model.layers[index % 2].state_dict())
    for name in ("embed_tokens", "norm"):
        getattr(built.llm.model, name).load_state_dict(getattr(backbone.llm.model, name).state_dict())
    built.llm.lm_head.load_state_dict(backbone.llm.lm_head.state_dict())
    ids = random_batch(backbone, 2, 9).input_ids_BL
    with torch.no_grad():
        # With a cache, whose entries go by the layers' numbers.
        found, expected = (one.llm(input_ids=ids, use_cache=True) for one in (deep, built))
        assert torch.equal(found.logits, expected.logits)
        token = torch.tensor([[5], [6]])
        again = [
            one.llm(input_ids=token, **{CACHE_KEYWORD: out[CACHE_KEYWORD]}).logits
            for one, out in ((deep, found), (built, expected))
        ]
    assert torch.equal(again[0], again[1])


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
