"""A training step can be captured as a CUDA graph only if it never synchronises with the device."""

import pytest
import torch

from methods import registry
from tests.backbones import random_batch, tiny_backbone, tuned_model


@pytest.mark.parametrize("has_image", [(True, True, True), (True, False, True), (False, False, False)])
@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("name", registry())
def test_a_training_step_never_synchronises_with_the_device(name, padding, has_image, monkeypatch):
    backbone = tiny_backbone()
    model = tuned_model(name, backbone).train()
    batch = random_batch(backbone, 3, 12, padding=padding, has_image=has_image)
    for reading in ("__bool__", "nonzero", "item", "tolist"):
        monkeypatch.setattr(torch.Tensor, reading, lambda *_: pytest.fail("synchronised"))
    model(batch).backward()
