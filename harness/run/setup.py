"""What the runs of one command share: the backbone, the task, the machine, and where and how they are made."""

import gc
from pathlib import Path
from typing import Any

import torch

from harness.backbone.loader import Backbone, load_backbone
from harness.backbone.machine import Machine
from harness.config.plan import RunPlan
from harness.config.presets import BackboneSpec
from harness.data.loading import Loading
from harness.processes import Processes
from harness.records import BackboneInfo, spec_hash
from harness.run.outcome import describe_backbone
from harness.run.workspace import Workspace
from harness.tasks.contract import Task


class Setup:
    """One backbone, task and machine for any number of runs.

    Args:
        spec: the backbone.
        task: the task, with its data read.
        machine: device, dtype and kind of weights.
        data_s: seconds that it took to read and check the data.
        results_dir: folder of the records.
        checkpoint_minutes: time between two checkpoints of training.
        micro_batch: samples per forward pass in training; None finds the largest number that fits into memory.
        eval_every: optimiser steps between two validations during training; 0 never validates.
        tracker: name of the experiment tracker, see `harness.run.tracker`; empty for none.
        workers: processes that prepare batches; None chooses by the device.

    Raises:
        UserError: `workers` cannot be started on this system.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        task: Task,
        machine: Machine,
        data_s: float,
        results_dir: Path,
        checkpoint_minutes: float = 10.0,
        micro_batch: int | None = None,
        eval_every: int = 0,
        tracker: str = "",
        workers: int | None = None,
    ) -> None:
        self.spec, self.task, self.machine = spec, task, machine
        self.data_s, self.results_dir, self.checkpoint_minutes = data_s, results_dir, checkpoint_minutes
        self.micro_batch, self.eval_every, self.tracker = micro_batch, eval_every, tracker
        self.loading = Loading.of(workers, machine.device)
        self.processes = Processes.launched(machine.device)
        self._info: BackboneInfo | None = None

    def load(self) -> Backbone:
        """Load the backbone, as it is before a method is attached."""
        machine = self.machine
        # The whole model may not fit on one GPU, so layers that are to be divided come there in parts.
        device = torch.device("cpu") if self.processes.are_in_step else machine.device
        return load_backbone(self.spec, weights=machine.weights, device=device, dtype=machine.dtype)

    def backbone_info(self) -> BackboneInfo:
        """Return the `backbone` section of the records. The first call loads the weights to hash them."""
        if self._info is None:
            self._info = describe_backbone(self.load(), self.spec)
            gc.collect()  # quantised layers contain reference cycles, and a second backbone may not fit beside them
        return self._info

    def spec_of(self, plan: RunPlan) -> dict[str, Any]:
        """Return what is asked for of a run. Its hash identifies the run."""
        data = self.task.data(plan.recipe)
        descriptions = self.task.descriptions_hash() if plan.is_oracle else None
        return {
            "method": plan.method,
            "variant": plan.variant,
            "model": self.spec.name,
            "task": self.task.name,
            "seed": plan.seed,
            "config": plan.resolved(),
            "data_hash": data.data_hash,
            "limit": data.limit,
            "skipped_images": data.skipped_images,
            "backbone": self.backbone_info().model_dump(mode="json"),
            **({} if descriptions is None else {"descriptions": descriptions}),
        }

    def workspace(self, plan: RunPlan) -> Workspace:
        """Return the folder that a run works in until it is complete."""
        digest = spec_hash(self.spec_of(plan))
        run = Path(self.task.name, self.spec.name, plan.label, f"seed{plan.seed}-{digest}")
        return Workspace(self.results_dir, run, digest)
