"""Shared weights: no tensor is copied, and methods that share a backbone compute what they compute alone."""

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


@pytest.fixture(scope="module")
def repeated():
    """A backbone of two layers, the same repeated to four, and one that was built with these four layers."""
    backbone = tiny_backbone(num_layers=2)
    deep = share_backbone(backbone, repeat=2)
    built = tiny_backbone(num_layers=4)
    for index, layer in enumerate(built.llm.model.layers):
        layer.load_state_dict(backbone.llm.model.layers[index % 2].state_dict())
    for name in ("embed_tokens", "norm"):
        getattr(built.llm.model, name).load_state_dict(getattr(backbone.llm.model, name).state_dict())
    built.llm.lm_head.load_state_dict(backbone.llm.lm_head.state_dict())
    return backbone, deep, built


def test_repeated_layers_share_their_weights(repeated):
    backbone, deep, _ = repeated
    assert (backbone.num_layers, deep.num_layers) == (2, 4)
    assert {id(p) for p in deep.llm.parameters()} == {id(p) for p in backbone.llm.parameters()}


def test_repeated_layers_compute_the_deeper_model_with_a_cache(repeated):
    """The cache finds the keys and values of a layer by its index."""
    backbone, deep, built = repeated
    ids = random_batch(backbone, 2, 9).input_ids_BL
    with torch.no_grad():
        found, expected = (one.llm(input_ids=ids, use_cache=True) for one in (deep, built))
        assert torch.equal(found.logits, expected.logits)
        token = torch.tensor([[5], [6]])
        again = [
            one.llm(input_ids=token, **{CACHE_KEYWORD: out[CACHE_KEYWORD]}).logits
            for one, out in ((deep, found), (built, expected))
        ]
    assert torch.equal(again[0], again[1])


@pytest.fixture(scope="module")
def together():
    """A backbone, and every method on a share of it after one backward pass."""
    backbone = tiny_backbone()
    models = {name: tuned_model(name, share_backbone(backbone)) for name in registry()}
    for model in models.values():
        model(random_batch(backbone, 3, 10)).backward()
    return backbone, models


@pytest.mark.parametrize("name", registry())
def test_a_method_on_a_shared_backbone_computes_what_it_computes_alone(name, together):
    backbone, models = together
    batch, model, alone = random_batch(backbone, 3, 10), models[name], tuned_model(name)
    alone(batch).backward()
    own = dict(model.method.named_parameters())
    with torch.no_grad():
        torch.testing.assert_close(model.logits(batch), alone.logits(batch), rtol=0, atol=0)
    for parameter_name, parameter in alone.method.named_parameters():
        torch.testing.assert_close(own[parameter_name].grad, parameter.grad, rtol=0, atol=0)


@pytest.mark.parametrize("name", registry())
def test_no_method_has_a_frozen_tensor_among_its_parameters(name, together):
    backbone, models = together
    frozen = {id(tensor) for tensor in tensors(backbone).values()}
    assert not frozen & {id(parameter) for parameter in models[name].method.parameters()}


def test_the_backbone_itself_has_no_method_and_no_gradient(together):
    backbone, _ = together
    ids = random_batch(backbone, 3, 10).input_ids_BL
    with torch.no_grad():
        assert torch.equal(backbone.llm(input_ids=ids).logits, tiny_backbone().llm(input_ids=ids).logits)
    assert all(tensor.grad is None for tensor in tensors(backbone).values())
