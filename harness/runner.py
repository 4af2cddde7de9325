"""One planned run: load, attach, train, evaluate, record. The record says how it ended, whatever happened."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from harness.backbone import Backbone, load_backbone
from harness.cost.memory import read_peak, reset_peak
from harness.cost.params import count_parameters
from harness.data.collate import Collator
from harness.data.images import STATISTICS, ImagePreprocessor
from harness.files import write_atomic
from harness.plan import RunPlan
from harness.presets import BackboneSpec
from harness.records import (
    BackboneInfo,
    Loss,
    Record,
    Times,
    collect_environment,
    collect_git,
    spec_hash,
    write_predictions,
    write_record,
)
from harness.requirements import dtype_name
from harness.tasks import Evaluation, Task
from harness.train import WARMUP_STEPS, TrainingFailedError, TrainResult, total_steps, train
from methods import get_method
from methods.checkpoint import save_adapter
from methods.frozen import Frozen
from methods.tuned import TunedModel

NOT_TRAINED = "nothing is trained"


@dataclass(frozen=True)
class Machine:
    """Where runs are made."""

    device: torch.device
    dtype: torch.dtype
    weights: str = "pretrained"


class Progress(Protocol):
    """How a run tells where it is."""

    def start(self, what: str, total: int) -> None:
        """A new phase of `total` steps begins."""
        ...

    def advance(self, done: int, note: str = "") -> None:
        """`done` steps of the phase are over."""
        ...


@dataclass
class _Outcome:
    """What a run has measured so far; a record can be made of it at any time."""

    load_s: float | None = None
    parameters: Any = None
    training: TrainResult = field(default_factory=TrainResult)
    evaluation: Evaluation | None = None
    peak: Any = None


class Runner:
    """Runs plans on one backbone, task and machine.

    Args:
        spec: the backbone.
        task: the task, its data read.
        machine: device, dtype and kind of weights.
        data_s: seconds that reading and checking the data took.
        results_dir: where records go.
    """

    def __init__(self, spec: BackboneSpec, task: Task, machine: Machine, data_s: float, results_dir: Path) -> None:
        self.spec, self.task, self.machine = spec, task, machine
        self.data_s, self.results_dir = data_s, results_dir
        self._info: BackboneInfo | None = None

    def backbone_info(self) -> BackboneInfo:
        """Identity of the backbone; the weights are read once for their hash."""
        if self._info is None:
            self._info = _describe(self._load(), self.spec)
        return self._info

    def spec_of(self, plan: RunPlan) -> dict[str, Any]:
        """Everything that can change the outcome of `plan`; its hash names the run."""
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
        """Make the run and write its record, predictions and adapter.

        Returns:
            The record, whose status says whether training failed.

        Raises:
            KeyboardInterrupt: after the record of the interrupted run is written.
        """
        outcome = _Outcome()
        status, error, step = "completed", None, None
        try:
            self._measure(plan, outcome, progress)
        except TrainingFailedError as failure:
            status, error, step = "failed", str(failure), failure.step
        except torch.cuda.OutOfMemoryError as failure:
            status, error = "failed", f"out of GPU memory: {str(failure).splitlines()[0]}; give a smaller batch_size"
        except KeyboardInterrupt:
            self._write(plan, outcome, "interrupted", "interrupted by the user", len(outcome.training.losses))
            raise
        return self._write(plan, outcome, status, error, step)

    def _load(self) -> Backbone:
        machine = self.machine
        return load_backbone(self.spec, weights=machine.weights, device=machine.device, dtype=machine.dtype)

    def _measure(self, plan: RunPlan, outcome: _Outcome, progress: Progress) -> None:
        reset_peak(self.machine.device)
        set_seed(plan.seed)
        begun = time.perf_counter()
        backbone = self._load()
        method = Frozen(backbone) if plan.is_oracle else get_method(plan.method)(backbone, plan.config)
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
        self, plan: RunPlan, model: TunedModel, preprocessor: ImagePreprocessor, outcome: _Outcome, progress: Progress
    ) -> None:
        recipe = plan.recipe
        examples = self.task.train_examples(recipe)
        collator = Collator(model.backbone.tokenizer, preprocessor, recipe.max_length)
        if recipe.gradient_checkpointing:
            model.llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        progress.start(f"{plan.label} seed {plan.seed}: training", total_steps(len(examples), recipe))
        accelerator = Accelerator(cpu=self.machine.device.type == "cpu")
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

    def _save(self, plan: RunPlan, method: Any) -> None:
        digest = spec_hash(self.spec_of(plan))
        place = Path("adapters", self.task.name, self.spec.name, plan.label, f"seed{plan.seed}-{digest}")
        identity = {"llm": self.spec.llm, "clip": self.spec.clip, "model": self.spec.name}
        info = self.backbone_info()
        extra = {
            "backbone": {**identity, "weight_hash": info.weight_hash, "dtype": info.dtype},
            "task": self.task.name,
            "train": plan.recipe.model_dump(mode="json"),
        }
        save_adapter(self.results_dir / place, method, extra, write_atomic)

    def _write(self, plan: RunPlan, outcome: _Outcome, status: Any, error: str | None, step: int | None) -> Record:
        record = self._record(plan, outcome, status, error, step)
        path = write_record(record, self.results_dir)
        if outcome.evaluation is not None:
            write_predictions(path, outcome.evaluation.rows)
        return record

    def _record(
        self, plan: RunPlan, outcome: _Outcome, status: Any, error: str | None, step: int | None
    ) -> Record:
        training, evaluation = outcome.training, outcome.evaluation
        data = self.task.data(plan.recipe)
        trained = not plan.is_oracle
        gpu = torch.cuda.get_device_name() if self.machine.device.type == "cuda" else None
        missing = {}
        if gpu is None:
            missing |= {f"peak_memory_bytes.{name}": "no GPU" for name in ("cuda_allocated", "cuda_reserved")}
        if not trained:
            missing |= {f"times_s.{name}": NOT_TRAINED for name in ("train", "train_step_median", "train_step_p90")}
        return Record(
            kind="train" if trained else "oracle",
            spec_hash=spec_hash(self.spec_of(plan)),
            method=plan.method,
            variant=plan.variant,
            model=self.spec.name,
            task=self.task.name,
            seed=plan.seed,
            config=plan.resolved(),
            data=data,
            backbone=self.backbone_info(),
            metrics={} if evaluation is None else evaluation.metrics,
            parse_failures=None if evaluation is None else evaluation.failures,
            parameters=outcome.parameters,
            times_s=self._times(outcome),
            steps=len(training.losses) if trained else None,
            epochs=training.epochs if trained else None,
            loss=Loss(first=training.losses[0], last=training.losses[-1]) if training.losses else None,
            **({"peak_memory_bytes": outcome.peak} if outcome.peak else {}),
            environment=collect_environment(gpu=gpu, threads=torch.get_num_threads()),
            git=collect_git(),
            status=status,
            error=error,
            failed_step=step,
            missing=missing if status == "completed" else {},
        )

    def _times(self, outcome: _Outcome) -> Times:
        training, evaluation = outcome.training, outcome.evaluation
        settled = training.step_s[WARMUP_STEPS:] or training.step_s
        return Times(
            load=outcome.load_s,
            data=self.data_s,
            train_step_median=median(settled) if settled else None,
            train_step_p90=_p90(settled) if settled else None,
            train=training.total_s if settled else None,
            eval=evaluation.eval_s if evaluation else None,
            scoring=evaluation.scoring_s if evaluation else None,
        )


def _p90(values: list[float]) -> float:
    return quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]


def _describe(backbone: Backbone, spec: BackboneSpec) -> BackboneInfo:
    name = f"{spec.name}-llm" if spec.shipped else spec.llm
    clip = f"{spec.name}-clip" if spec.shipped else spec.clip
    return BackboneInfo(
        llm=Path(name).name if name and Path(name).is_dir() else name or f"{spec.name} (random)",
        clip=clip if clip and not clip.startswith("local-dir:") else Path(clip or spec.name).name,
        weights=backbone.weights,  # type: ignore[arg-type]
        weight_hash=backbone.fingerprint(),
        hidden_size=backbone.hidden_size,
        num_layers=backbone.num_layers,
        vision_layers=backbone.vision.num_layers,
        dtype=dtype_name(backbone.dtype),
    )
