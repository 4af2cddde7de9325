"""The models that are timed: which there are, and what one step of each trains."""

from types import SimpleNamespace

import pytest
import torch

from harness.backbone.loader import load_backbone
from harness.config.presets import resolve_spec
from harness.cost import contestants as building
from harness.cost.contestants import build_contestants, random_batch
from harness.errors import UserError
from harness.run.train import adamw
from tests.backbones import tiny_backbone
from tests.harness.cost.small_speed import METHODS, WORK, plan


@pytest.fixture(scope="module")
def trained():
    """All contestants after one large training step, with their parameters and the frozen weights before it."""
    backbone = load_backbone(resolve_spec("tiny"), weights="random")
    frozen = {name: tensor.clone() for name, tensor in backbone.llm.state_dict().items()}
    contestants = build_contestants(backbone, plan().plans)
    before = [[parameter.clone() for parameter in one.model.method.parameters()] for one in contestants]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "LEARNING_RATE", 0.1)
        for one in contestants:
            one.model.train()
            one.step("train", WORK)()
    return SimpleNamespace(backbone=backbone, frozen=frozen, contestants=contestants, before=before)


def test_the_yardstick_every_method_and_the_plain_readings_are_timed(trained):
    named = [(one.method, one.implementation) for one in trained.contestants]
    assert named[0] == ("frozen", "yardstick")
    assert sorted(name for name, kind in named if kind == "shipped") == METHODS
    assert sorted(name for name, kind in named if kind == "plain") == ["dehvf", "memvp"]


def test_a_step_trains_the_contestants_own_parameters(trained):
    for one, before in zip(trained.contestants, trained.before, strict=True):
        after = list(one.model.method.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True)), one.method


def test_a_step_keeps_no_gradient(trained):
    for one in trained.contestants:
        assert all(parameter.grad is None for parameter in one.model.parameters())


def test_a_step_leaves_the_frozen_weights_as_they_are(trained):
    assert all(torch.equal(trained.frozen[name], t) for name, t in trained.backbone.llm.state_dict().items())


def test_a_timed_step_trains_what_one_optimiser_step_trains(monkeypatch):
    monkeypatch.setattr(building, "LEARNING_RATE", 0.1)
    trained = []
    for timed in (True, False):
        torch.manual_seed(0)
        backbone = load_backbone(resolve_spec("tiny"), weights="random")
        for one in build_contestants(backbone, plan().plans):
            one.model.eval()  # without dropout
            if timed:
                one.step("train", WORK)()
            else:
                optimizer = adamw(one.model, one.recipe, 0.1)
                one.loss(random_batch(backbone, WORK.train_batch, WORK.text_length, WORK.labels)).backward()
                optimizer.step()
            trained.append((one.method, [parameter.detach() for parameter in one.model.method.parameters()]))
    half = len(trained) // 2
    for (name, first), (_, second) in zip(trained[:half], trained[half:], strict=True):
        torch.testing.assert_close(second, first, msg=lambda text, name=name: f"{name}: {text}")


def test_random_batches_of_equal_sizes_are_equal():
    backbone = tiny_backbone()
    batch, again = (random_batch(backbone, 3, 7, labels=2) for _ in range(2))
    assert torch.equal(batch.input_ids_BL, again.input_ids_BL) and torch.equal(batch.images_BCHW, again.images_BCHW)


def test_random_batches_are_labelled_at_the_end():
    batch = random_batch(tiny_backbone(), 3, 7, labels=2)
    assert ((batch.labels_BL != -100).sum(dim=1) == 2).all() and (batch.labels_BL[:, :-2] == -100).all()


def test_random_batches_have_images_and_no_padding():
    batch = random_batch(tiny_backbone(), 3, 7, labels=2)
    assert bool(batch.has_image_B.all()) and bool(batch.attention_mask_BL.all())


def test_a_text_that_is_all_labels_is_rejected():
    with pytest.raises(UserError, match="--text-length 2"):
        random_batch(tiny_backbone(), 3, 2, labels=2)
