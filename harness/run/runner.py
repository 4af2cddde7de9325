"""One planned run: load, attach, train, evaluate, record. Whatever happens, the record says how the run ended."""

import gc
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from harness.backbone.language_model import llm_config
from harness.backbone.loader import Backbone, load_backbone
from harness.backbone.machine import Machine
from harness.config.plan import RunPlan
from harness.config.presets import BackboneSpec
from harness.data.collate import Collator
from harness.data.images import STATISTICS, ImagePreprocessor
from harness.errors import UserError
from harness.evaluation.choices import EvaluationFailedError
from harness.files import require_writable, write_atomic
from harness.records import (
    BackboneInfo,
    Record,
    predictions_path,
    record_path,
    spec_hash,
    write_predictions,
    write_record,
)
from harness.run.attach import attach, attach_on_meta
from harness.run.memory import read_peak, reset_peak
from harness.run.outcome import Ending, Identity, Outcome, describe_backbone, make_record
from harness.run.parameters import count_parameters
from harness.run.progress import Progress
from harness.run.schedule import training_length
from harness.run.train import TrainingFailedError, train
from harness.tasks.contract import Task
from harness.tasks.samples import keep_samples
from methods.checkpoint import save_adapter
from methods.tuned import TunedModel


class Runner:
    """Makes runs on one backbone, task and machine.

    Args:
        spec: the backbone.
        task: the task, with its data read.
        machine: device, dtype and kind of weights.
        data_s: seconds that it took to read and check the data.
        results_dir: folder of the records.
    """

    def __init__(self, spec: BackboneSpec, task: Task, machine: Machine, data_s: float, results_dir: Path) -> None:
        self.spec, self.task, self.machine = spec, task, machine
        self.data_s, self.results_dir = data_s, results_dir
        self._info: BackboneInfo | None = None

    def backbone_info(self) -> BackboneInfo:
        """Return the `backbone` section of the records. The first call loads the weights to hash them."""
        if self._info is None:
            self._info = describe_backbone(self._load(), self.spec)
        return self._info

    def check(self, plans: Sequence[RunPlan]) -> None:
        """Check everything that would make a run fail, before the first one starts.

        Args:
            plans: the runs.

        Raises:
            UserError: a method cannot be built at this size, `max_length` exceeds the language model's context, the
                data does not suit a run, or the results cannot be written.
        """
        context = llm_config(self.spec).max_position_embeddings
        for plan in {plan.label: plan for plan in plans}.values():
            if plan.recipe.max_length > context:
                wanted = f"--set max_length={plan.recipe.max_length}"
                raise UserError(f"{wanted}: {self.spec.display} reads at most {context} tokens; give a smaller number")
            self.task.evaluation_size(plan.recipe)
            if plan.is_oracle:
                self.task.require_oracle(plan.recipe)
                continue
            self.task.train_examples(plan.recipe)
            attach_on_meta(plan, self.spec)
        require_writable(self.results_dir)

    def spec_of(self, plan: RunPlan) -> dict[str, Any]:
        """Return everything that can change the outcome of a run. Its hash identifies the run."""
        data = self.task.data(plan.recipe)
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
        }

    def run(self, plan: RunPlan, progress: Progress) -> Record:
        """Make one run and write its record, predictions and adapter.

        Args:
            plan: the run.
            progress: receives how far the run is.

        Returns:
            The record. Its status says whether the run failed. The traceback of an unexpected failure is printed.

        Raises:
            KeyboardInterrupt: after the record of the interrupted run is written.
            UserError: an option or the data does not allow this run.
        """
        # Hash the weights first: a second backbone next to the trained one might not fit into memory.
        self.backbone_info()
        outcome, ending = Outcome(self.data_s), Ending()
        try:
            self._measure(plan, outcome, progress)
        except TrainingFailedError as failure:
            ending = Ending("failed", str(failure), failure.step)
        except EvaluationFailedError as failure:
            ending = Ending("failed", str(failure))
        except torch.cuda.OutOfMemoryError as failure:
            reason = str(failure).splitlines()[0]
            ending = Ending("failed", f"out of GPU memory: {reason}; give a smaller batch_size")
        except KeyboardInterrupt:
            self._write(plan, outcome, Ending("interrupted", "interrupted by the user"))
            raise
        except UserError:
            raise
        except Exception as failure:
            # A bug in one method, or too little memory for it, must not stop the runs of the others.
            traceback.print_exc()
            ending = Ending("failed", f"{type(failure).__name__}: {(str(failure).splitlines() or ['no message'])[0]}")
        finally:
            # A wrapped backbone contains reference cycles, and the next run loads a backbone of its own.
            gc.collect()
            torch.cuda.empty_cache()
        return self._write(plan, outcome, ending)

    def _load(self) -> Backbone:
        machine = self.machine
        return load_backbone(self.spec, weights=machine.weights, device=machine.device, dtype=machine.dtype)

    def _measure(self, plan: RunPlan, outcome: Outcome, progress: Progress) -> None:
        """Load, train and evaluate; fill `outcome` on the way."""
        reset_peak(self.machine.device)
        set_seed(plan.seed)
        begun = time.perf_counter()
        backbone = self._load()
        method = attach(plan, backbone)
        model = TunedModel(backbone, method.to(self.machine.device))
        outcome.load_s = time.perf_counter() - begun
        outcome.parameters = None if plan.is_oracle else count_parameters(backbone, method)
        recipe = plan.recipe
        mean, std = STATISTICS[recipe.image_statistics]
        preprocessor = ImagePreprocessor(backbone.vision.image_size, mean, std)
        if not plan.is_oracle:
            self._train(plan, model, preprocessor, outcome, progress)
        progress.start(f"{plan.label} seed {plan.seed}: evaluating", self.task.evaluation_size(recipe))
        evaluate = self.task.evaluate_oracle if plan.is_oracle else self.task.evaluate
        outcome.evaluation = evaluate(model, recipe, preprocessor, progress.advance)
        outcome.peak = read_peak(self.machine.device)
        if not plan.is_oracle:
            self._save(plan, method)

    def _train(
        self, plan: RunPlan, model: TunedModel, preprocessor: ImagePreprocessor, outcome: Outcome, progress: Progress
    ) -> None:
        """Train the model in place."""
        recipe = plan.recipe
        examples = self.task.train_examples(recipe)
        collator = Collator(model.backbone.tokenizer, preprocessor, recipe.max_length)
        if recipe.gradient_checkpointing:
            model.llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        progress.start(f"{plan.label} seed {plan.seed}: training", training_length(len(examples), recipe).steps)
        accelerator = Accelerator(cpu=self.machine.device.type == "cpu")
        try:
            train(
                model,
                examples,
                collator,
                recipe,
                accelerator,
                plan.seed,
                lambda step, loss, rate: progress.advance(step, f"loss {loss:.3f} lr {rate:.2e}"),
                outcome.training,
            )
        finally:
            outcome.train_truncated = collator.truncated

    def _save(self, plan: RunPlan, method: Any) -> None:
        """Write the trained adapter."""
        digest = spec_hash(self.spec_of(plan))
        place = Path("adapters", self.task.name, self.spec.name, plan.label, f"seed{plan.seed}-{digest}")
        info = self.backbone_info()
        # The path of the shipped backbone is that of the installed package, so it is not recorded.
        parts = {} if self.spec.shipped else {"llm": self.spec.llm, "clip": self.spec.clip}
        extra = {
            "backbone": {"model": self.spec.name, **parts, "weight_hash": info.weight_hash, "dtype": info.dtype},
            "task": self.task.name,
            "train": plan.recipe.model_dump(mode="json"),
        }
        save_adapter(self.results_dir / place, method, extra, write_atomic)

    def _write(self, plan: RunPlan, outcome: Outcome, ending: Ending) -> Record:
        """Write predictions, samples and, last, the record."""
        data = self.task.data(plan.recipe)
        identity: Identity = {
            "spec_hash": spec_hash(self.spec_of(plan)),
            "model": self.spec.name,
            "task": self.task.name,
            "data": data,
            "backbone": self.backbone_info(),
        }
        # Answers from random weights mean nothing, so they are not kept.
        answered = None if self.backbone_info().weights == "random" else outcome.evaluation
        # The record is written last, so a run with a record has all its files.
        shown = answered.shown if answered else ()
        samples = keep_samples(shown, self.task.name, data, self.results_dir)
        record = make_record(plan, outcome, ending, self.machine.device, identity, samples)
        path = record_path(record, self.results_dir)
        if answered is not None:
            write_predictions(path, answered.rows)
        else:
            predictions_path(path).unlink(missing_ok=True)
        write_record(record, self.results_dir)
        return record
