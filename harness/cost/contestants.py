"""The models that a speed measurement times: every method, its plain reading if it has one, and the yardstick.

They all share one set of frozen weights (`harness.cost.share`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from harness.backbone.loader import Backbone
from harness.config.plan import RunPlan
from harness.config.recipe import TrainRecipe
from harness.cost.flops import Workload
from harness.cost.share import share_backbone
from harness.cost.timing import Key
from harness.cost.yardstick import Yardstick, YardstickModel
from harness.errors import UserError
from harness.records import Implementation, Parameters
from harness.run.attach import attach
from harness.run.execution import Execution, MicroBatch
from harness.run.optimiser import adamw
from harness.run.parameters import count_parameters
from harness.run.step import OptimiserStep, TrainingFailedError
from methods.base import IGNORE_INDEX, Batch
from methods.plain import plain_reading
from methods.tuned import TunedModel

LEARNING_RATE = 1e-6
"""It is small so that random weights stay finite. Arithmetic on infinite values may take a different time."""


@dataclass
class Contestant:
    """One model that is timed.

    Attributes:
        method: registry name of the method, or the yardstick's name.
        implementation: the method as it is run, its plain reading, or the yardstick.
        backbone: a backbone that shares its weights with those of all contestants.
        plan: the method's config and recipe; None for the yardstick.
        model: the backbone with the method attached.
        parameters: parameter counts; None for the yardstick.
        recipe: settings of the optimiser.
    """

    method: str
    implementation: Implementation
    backbone: Backbone
    plan: RunPlan | None
    model: TunedModel
    parameters: Parameters | None
    recipe: TrainRecipe

    @property
    def key(self) -> Key:
        """The key of the contestant's results."""
        return Key(self.method, self.implementation)

    def training_step(self, work: Workload, execution: Execution) -> Callable[[], None]:
        """Return a function that makes an optimiser step as `run` does, always on the same batch.

        The batch is on the host, and one forward pass takes it as a whole.

        Args:
            work: the sizes of the batches.
            execution: runs the forward and backward passes of `model`.

        Raises:
            UserError: the text is too short for the labels. The returned function raises it where the loss is not
                finite.
        """
        batch = random_batch(self.backbone, work.train_batch, work.text_length, work.labels)
        device = self.backbone.device
        if device.type == "cuda":
            batch = batch.pin_memory()  # as `harness.data.loading` does
        optimise = OptimiserStep(
            execution,
            adamw(self.model, self.recipe),
            MicroBatch(work.train_batch, automatic=False),
            self.recipe.max_grad_norm,
            device,
            say=lambda line: None,
        )
        return lambda: self._train(optimise, batch)

    def _train(self, optimise: OptimiserStep, batch: Batch) -> None:
        try:
            optimise([batch], LEARNING_RATE, 1)
        except TrainingFailedError as error:
            message = f"{self.method}: the loss of its training step is not finite, so its time would mean nothing"
            raise UserError(f"{message}; give --dtype float32") from error

    def inference_step(self, work: Workload) -> Callable[[], None]:
        """Return a function that runs the inference of one batch, always the same, which is on the device.

        Args:
            work: the sizes of the batches.
        """
        batch = random_batch(self.backbone, work.eval_batch, work.text_length, labels=0).to(self.backbone.device)
        return lambda: self._infer(batch, work.new_tokens)

    @torch.no_grad()
    def _infer(self, batch: Batch, new_tokens: int) -> None:
        """Encode the images, prefill and decode greedily. Like an evaluation, copy the last tokens to the host."""
        logits_BV, state = self.model.prefill(batch)
        tokens_B = logits_BV.argmax(dim=-1)
        for _ in range(new_tokens - 1):
            tokens_B = self.model.step(tokens_B, state).argmax(dim=-1)
        tokens_B.tolist()


def build_contestants(backbone: Backbone, plans: Sequence[RunPlan]) -> list[Contestant]:
    """Build the yardstick, then the method of each plan, followed by its plain reading if it has one.

    Args:
        backbone: with no method attached. It is not changed.
        plans: one plan per method.

    Raises:
        UserError: a method cannot be built at this size.
    """
    shared = share_backbone(backbone)
    bare = YardstickModel(shared, Yardstick(shared).to(backbone.device))
    recipe = plans[0].recipe
    found = [Contestant(Yardstick.name, "yardstick", shared, None, bare, None, recipe)]
    for plan in plans:
        found.append(_contestant(backbone, plan, "shipped"))
        if plain_reading(found[-1].model.method) is not None:
            found.append(_contestant(backbone, plan, "plain"))
    return found


def _contestant(backbone: Backbone, plan: RunPlan, implementation: Implementation) -> Contestant:
    """Attach a method, or its plain reading, to a backbone of its own."""
    shared = share_backbone(backbone)
    method = attach(plan, shared, f"remove {plan.method} from --methods, or choose another --layers")
    parameters = count_parameters(shared, method)
    if implementation == "plain":
        method = plain_reading(method)
        assert method is not None, f"{plan.method} has no plain reading"
    model = TunedModel(shared, method.to(backbone.device))
    return Contestant(plan.method, implementation, shared, plan, model, parameters, plan.recipe)


def random_batch(backbone: Backbone, samples: int, length: int, labels: int) -> Batch:
    """Return random text without padding and random images, on the host. Equal sizes give equal batches.

    Args:
        backbone: gives the vocabulary and the image size.
        samples: samples of the batch; each has an image.
        length: text tokens per sample.
        labels: labelled tokens at the end of each sample; 0 for a batch without labels.

    Raises:
        UserError: there is no text before the labelled tokens.
    """
    if labels >= length:
        raise UserError(f"--text-length {length}: must be greater than {labels}, the number of labelled tokens")
    generator = torch.Generator().manual_seed(0)
    vocabulary, size = backbone.llm.config.vocab_size, backbone.vision.image_size
    ids_BL = torch.randint(3, vocabulary, (samples, length), generator=generator)
    ids_BL[:, 0] = backbone.tokenizer.bos_token_id
    labels_BL = None
    if labels:
        labels_BL = torch.full_like(ids_BL, IGNORE_INDEX)
        labels_BL[:, -labels:] = ids_BL[:, -labels:]
    images_BCHW = torch.randn(samples, 3, size, size, generator=generator)
    no_padding_BL, has_image_B = (torch.ones(shape, dtype=torch.bool) for shape in ((samples, length), (samples,)))
    return Batch(ids_BL, no_padding_BL, labels_BL, images_BCHW, has_image_B)
