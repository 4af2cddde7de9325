"""The models that are timed: which there are, and what one step of each trains."""

from types import SimpleNamespace

import pytest
import torch

from harness.backbone.loader import load_backbone
from harness.config.presets import resolve_spec
from harness.cost import contestants as building
from harness.cost.contestants import build_contestants, random_batch
from harness.errors import UserError
from harness.run.captured import Captured
from harness.run.execution import Eager, MicroBatch
from tests.backbones import tiny_backbone
from tests.harness.cost.small_speed import CPU, METHODS, WORK, plan
from tests.harness.run.test_captured import Emulated


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
            one.training_step(WORK, Eager(one.model, CPU))()
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


def sgd(model, recipe=None):
    """Return an optimiser whose steps are the gradients. AdamW's first step is their sign, which rounding can turn."""
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)


def test_eager_and_captured_steps_train_what_one_optimiser_step_trains(monkeypatch):
    monkeypatch.setattr(building, "LEARNING_RATE", 0.1)
    monkeypatch.setattr(building, "adamw", sgd)
    backbone = load_backbone(resolve_spec("tiny"), weights="random")
    batch = random_batch(backbone, WORK.train_batch, WORK.text_length, WORK.labels)
    micro_batch = MicroBatch(WORK.train_batch, automatic=False)
    for one in build_contestants(backbone, plan().plans):
        one.model.eval()  # without dropout
        parameters = [p for p in one.model.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in parameters]

        def expected(one=one, parameters=parameters):
            optimizer = sgd(one.model)
            one.model(batch).backward()
            if one.recipe.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, one.recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()

        changes = []
        for step in (
            expected,
            one.training_step(WORK, Eager(one.model, CPU)),
            one.training_step(WORK, Captured(one.model, CPU, micro_batch, Emulated())),
        ):
            step()
            changes.append(torch.cat([(p - old).flatten() for p, old in zip(parameters, before, strict=True)]).detach())
            with torch.no_grad():
                for parameter, old in zip(parameters, before, strict=True):
                    parameter.copy_(old)
        assert changes[0].abs().max() > 0
        for change in changes[1:]:
            tolerance = 1e-5 * float(changes[0].abs().max())
            torch.testing.assert_close(
                change, changes[0], rtol=1e-3, atol=tolerance, msg=lambda text, one=one: f"{one.key}: {text}"
            )


def test_a_loss_that_is_not_finite_is_named():
    backbone = load_backbone(resolve_spec("tiny"), weights="random")
    (bare, *_) = build_contestants(backbone, plan(("memvp",)).plans)
    with torch.no_grad():
        bare.model.method.text_D.fill_(float("inf"))
    with pytest.raises(UserError, match=r"^frozen: the loss of its training step is not finite.*give --dtype float32"):
        bare.training_step(WORK, Eager(bare.model, CPU))()


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
