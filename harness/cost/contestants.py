"""What a speed measurement times: every method, the plain reading where it has one, and the yardstick.

All stand on one set of frozen weights (`harness.cost.share`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from harness.backbone.loader import Backbone
from harness.config.plan import RunPlan
from harness.config.recipes import TrainRecipe
from harness.cost.flops import Phase, Workload
from harness.cost.share import share_backbone
from harness.cost.timing import Key
from harness.cost.yardstick import Yardstick, yardstick_loss
from harness.errors import UserError
from harness.records import Implementation, Parameters
from harness.run.attach import attach
from harness.run.parameters import count_parameters
from harness.run.train import adamw
from methods.base import IGNORE_INDEX, Batch
from methods.plain import plain_reading
from methods.tuned import TunedModel

LEARNING_RATE = 1e-6
"""Small: random weights must not run off to infinity, whose arithmetic may cost another time."""


@dataclass
class Contestant:
    """One model that is timed.

    Attributes:
        method: registry name, or that of the yardstick.
        implementation: the method as it is run, its plain reading, or the yardstick.
        backbone: shares its weights with the others'.
        plan: the method's config and recipe; None: the yardstick.
        model: with the method attached.
        loss: of a training batch.
        parameters: counts; None: the yardstick.
        recipe: of the optimiser.
    """

    method: str
    implementation: Implementation
    backbone: Backbone
    plan: RunPlan | None
    model: TunedModel
    loss: Callable[[Batch], Tensor]
    parameters: Parameters | None
    recipe: TrainRecipe

    @property
    def key(self) -> Key:
        """What results are found by."""
        return Key(self.method, self.implementation)

    def step(self, phase: Phase, work: Workload, *, capturable: bool = False) -> Callable[[], None]:
        """The step that is timed: a training step, or the inference of one batch, on random data made here.

        Args:
            phase: which of the two.
            work: the sizes of the batches.
            capturable: let the optimiser keep its step count on the device, so that the step can be captured.
        """
        backbone = self.backbone
        if phase == "inference":
            batch = random_batch(backbone, work.eval_batch, work.text_length, labels=0)
            return lambda: self._infer(batch, work.new_tokens)
        batch = random_batch(backbone, work.train_batch, work.text_length, work.labels)
        optimizer = adamw(self.model, self.recipe, LEARNING_RATE)
        for group in optimizer.param_groups:
            group["capturable"] = capturable
        return lambda: self._train(batch, optimizer)

    def _train(self, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        """Forward, backward, optimiser. The gradients are freed, so that they are not in the next contestant's way."""
        self.loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _infer(self, batch: Batch, new_tokens: int) -> None:
        """Image encoding, prefill, greedy tokens; the last one is read back, as an evaluation does."""
        logits_BV, state = self.model.prefill(batch)
        tokens_B = logits_BV.argmax(dim=-1)
        for _ in range(new_tokens - 1):
            tokens_B = self.model.step(tokens_B, state).argmax(dim=-1)
        tokens_B.tolist()


def build_contestants(backbone: Backbone, plans: Sequence[RunPlan]) -> list[Contestant]:
    """The yardstick, then each plan's method and, where it has one, its plain reading.

    Args:
        backbone: with no method attached.
        plans: one for each method.

    Raises:
        UserError: a method that cannot be built at this size.
    """
    shared = share_backbone(backbone)
    bare = TunedModel(shared, Yardstick(shared).to(backbone.device))
    recipe = plans[0].recipe
    found = [Contestant(Yardstick.name, "yardstick", shared, None, bare, partial(yardstick_loss, bare), None, recipe)]
    for plan in plans:
        found.append(_contestant(backbone, plan, "shipped"))
        if plain_reading(found[-1].model.method) is not None:
            found.append(_contestant(backbone, plan, "plain"))
    return found


def _contestant(backbone: Backbone, plan: RunPlan, implementation: Implementation) -> Contestant:
    shared = share_backbone(backbone)
    method = attach(plan, shared, f"leave {plan.method} out of --methods, or give other --layers")
    parameters = count_parameters(shared, method)
    if implementation == "plain":
        method = plain_reading(method)
        assert method is not None, f"{plan.method} has no plain reading"
    model = TunedModel(shared, method.to(backbone.device))
    return Contestant(plan.method, implementation, shared, plan, model, model, parameters, plan.recipe)


def random_batch(backbone: Backbone, samples: int, length: int, labels: int) -> Batch:
    """Random text without padding and random images, the same for equal sizes; the last `labels` tokens are labelled.

    Raises:
        UserError: more labels than tokens behind the first.
    """
    if labels >= length:
        raise UserError(f"--text-length {length}: leaves no text before the {labels} labelled tokens; give more")
    generator = torch.Generator().manual_seed(0)
    vocabulary, size = backbone.llm.config.vocab_size, backbone.vision.image_size
    ids_BL = torch.randint(3, vocabulary, (samples, length), generator=generator)
    ids_BL[:, 0] = backbone.tokenizer.bos_token_id
    labels_BL = None
    if labels:
        labels_BL = torch.full_like(ids_BL, IGNORE_INDEX)
        labels_BL[:, -labels:] = ids_BL[:, -labels:]
    images_BCHW = torch.randn(samples, 3, size, size, generator=generator)
    everywhere = torch.ones(samples, length, dtype=torch.bool), torch.ones(samples, dtype=torch.bool)
    return Batch(ids_BL, everywhere[0], labels_BL, images_BCHW, everywhere[1]).to(backbone.device)
