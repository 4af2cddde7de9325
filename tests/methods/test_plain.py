"""The plain reading agrees with the method itself and, one sample at a time, with the printed formulas."""

import pytest
import torch

from methods import get_method, registry
from methods.plain import plain_reading
from methods.tuned import TunedModel
from tests.backbones import random_batch, tiny_backbone, tuned_model
from tests.methods import plain as formulas
from tests.methods.probes import greedy_logits

CASES = [("memvp", None), ("dehvf", None), *(("dehvf", name) for name in get_method("dehvf").ablations)]


def both(name, variant):
    """Return the method itself and its plain reading, with equal weights, each on its own backbone."""
    overrides = {} if variant is None else get_method(name).ablations[variant]
    itself = tuned_model(name, **overrides)
    other = tuned_model(name, **overrides)
    return itself, TunedModel(other.backbone, plain_reading(other.method)).eval()


def test_the_memory_methods_have_a_plain_reading_and_no_other_has():
    having = {name for name in registry() if plain_reading(tuned_model(name).method) is not None}
    assert having == {"memvp", "dehvf"}


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_output_and_gradients_are_the_methods_own(name, variant):
    itself, plainly = both(name, variant)
    batch = random_batch(itself.backbone, 3, 10, padding="right")
    for model in (itself, plainly):
        model(batch).backward()
    with torch.no_grad():
        torch.testing.assert_close(plainly.logits(batch), itself.logits(batch), atol=5e-5, rtol=1e-4)
    gradients = dict(plainly.method.method.named_parameters())
    for parameter_name, parameter in itself.method.named_parameters():
        expected, found = parameter.grad, gradients[parameter_name].grad
        assert (expected is None) == (found is None), parameter_name
        if expected is not None:
            torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()) + 1e-7, rtol=0)


@pytest.mark.parametrize("name", ["memvp", "dehvf"])
def test_decoding_is_the_methods_own(name):
    batch = random_batch(tiny_backbone(), 3, 10, padding="left")
    itself, plainly = (greedy_logits(model, batch, 2) for model in both(name, None))
    torch.testing.assert_close(itself, plainly, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["memvp", "dehvf"])
def test_matrices_are_those_of_the_printed_formulas(name):
    _, model = both(name, None)
    bare = tiny_backbone()
    batch = random_batch(bare, 2, 8)
    params = dict(model.method.method.named_parameters())
    with torch.no_grad():
        built = model.method.layer_inputs(model.encode(batch), 8)["memories"]
        for sample, (image, ind) in enumerate(zip(batch.images_BCHW, batch.has_image_B, strict=True)):
            expected = formulas.memories(bare, image, int(ind), params, model.method.config)
            for memory, (keys, values) in zip(built, expected, strict=True):
                torch.testing.assert_close(memory.keys.matrix_BND[sample], keys, atol=5e-5, rtol=1e-4)
                torch.testing.assert_close(memory.values.matrix_BND[sample], values, atol=5e-5, rtol=1e-4)
