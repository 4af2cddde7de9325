"""The yardstick computes the bare backbone and runs the backward pass through all of it."""

import pytest
import torch

from harness.cost.contestants import random_batch
from harness.cost.yardstick import Yardstick, YardstickModel
from tests.backbones import tiny_backbone


@pytest.fixture
def bare():
    return tiny_backbone()


@pytest.fixture
def model():
    backbone = tiny_backbone()
    return YardstickModel(backbone, Yardstick(backbone))


def test_inference_computes_the_logits_of_the_bare_language_model(bare, model):
    batch = random_batch(bare, 2, 9, labels=3)
    with torch.no_grad():
        logits, _ = model.prefill(batch)
        torch.testing.assert_close(logits, bare.llm(input_ids=batch.input_ids_BL).logits[:, -1])


def test_inference_computes_the_features_of_the_penultimate_clip_block(bare, model):
    batch = random_batch(bare, 2, 9, labels=3)
    with torch.no_grad():
        features = model.encode(batch)["features_BJC"]
        (expected,) = bare.vision.features(batch.images_BCHW, [bare.vision.num_layers - 1], normalize=True)
        torch.testing.assert_close(features, expected)


def test_training_computes_logits_at_all_positions(bare, model):
    widths = []
    model.llm.lm_head.register_forward_hook(lambda _, __, out: widths.append(tuple(out.shape)))
    model.summed_loss(random_batch(bare, 2, 9, labels=3))
    assert widths == [(2, 9, bare.llm.config.vocab_size)]


def test_the_backward_pass_reaches_the_start_of_both_towers(bare, model):
    loss, tokens = model.summed_loss(random_batch(bare, 2, 9, labels=3))
    loss.backward()
    assert tokens == 2 * 3
    for parameter in (model.method.text_D, model.method.patch_C):
        assert parameter.grad is not None and parameter.grad.abs().max() > 0
