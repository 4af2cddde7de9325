"""Counting the parameters of an attached method."""

import pytest

from harness.errors import UserError
from harness.run.parameters import count_parameters, module_of
from methods import registry
from methods.parameters import adapter_parameters
from tests.backbones import tuned_model


@pytest.mark.parametrize("name", sorted(registry()))
def test_counts_are_the_methods_own_parameters_and_the_total_counts_each_once(name):
    model = tuned_model(name)
    counted = count_parameters(model.backbone, model.method)
    assert counted.trainable == sum(p.numel() for p in adapter_parameters(model.method).values())
    assert counted.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted.paper_convention == counted.trainable + sum(model.method.reference_only().values())
    assert counted.total == sum(p.numel() for p in model.parameters())


def test_a_reference_only_name_that_is_trained_is_rejected():
    model = tuned_model("memvp")
    model.method.reference_only = lambda: {"memory.prompts": 1}
    with pytest.raises(UserError, match=r"memvp.*memory\.prompts"):
        count_parameters(model.backbone, model.method)


@pytest.mark.parametrize(
    ("parameter", "module"),
    [
        ("vision_adapters.3.down.weight", "vision_adapters"),
        ("memory.projector.down.bias", "memory.projector"),
        ("memory.prompts.keys", "memory.prompts"),
        ("fuser.blocks.0.attention.in_proj_weight", "fuser.blocks"),
        ("queries.layer_embedding", "queries"),
        ("gate", "gate"),
        ("0.weight", "0.weight"),
    ],
)
def test_module_names(parameter, module):
    assert module_of(parameter) == module
