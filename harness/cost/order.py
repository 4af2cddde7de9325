"""Which runs of a sweep take longer than others, by the FLOPs that they count."""

import math
from functools import cached_property

from harness.backbone.loader import Backbone
from harness.config.plan import RunPlan
from harness.config.presets import BackboneSpec
from harness.cost.flops import Phase, Workload, count_flops, total_flops
from harness.run.attach import attach_on_meta, meta_backbone
from harness.run.footprint import TYPICAL_TOKENS
from harness.tasks.contract import Task
from methods.cost import Costed

ONE_SAMPLE = Workload(text_length=TYPICAL_TOKENS, train_batch=1, eval_batch=1)


class RunFlops:
    """Counts the FLOPs of runs, to compare runs of one sweep: every text is taken to be equally long.

    Args:
        spec: the backbone; only its sizes are used.
        task: the task, with its data read.
    """

    def __init__(self, spec: BackboneSpec, task: Task) -> None:
        self._spec, self._task = spec, task
        self._counted: dict[str, float] = {}

    @cached_property
    def _pristine(self) -> Backbone:
        """The backbone without a method. It is not built where all runs are recorded already."""
        return meta_backbone(self._spec)

    def __call__(self, plan: RunPlan) -> float:
        """Return the FLOPs of a run, which are the same for every seed.

        They are infinite if the method does not count its FLOPs, because the run may take longest, and 0 for the
        oracle, which is not trained.
        """
        if plan.label not in self._counted:
            self._counted[plan.label] = 0.0 if plan.is_oracle else self._count(plan)
        return self._counted[plan.label]

    def _count(self, plan: RunPlan) -> float:
        backbone, method = attach_on_meta(plan, self._spec, pristine=self._pristine)
        if not isinstance(method, Costed):
            return math.inf
        trained = plan.recipe.epochs * len(self._task.train_examples(plan.recipe))
        samples: dict[Phase, float] = {"train": trained, "inference": self._task.evaluation_size(plan.recipe)}
        return sum(
            count * total_flops(count_flops(backbone, method, phase, ONE_SAMPLE)) for phase, count in samples.items()
        )
