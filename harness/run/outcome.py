"""What a run has measured so far, and its record. A record can be made at any time, even of an interrupted run."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Literal, Self, TypedDict

import torch

from harness.backbone.loader import Backbone
from harness.backbone.machine import dtype_name, gpu_name
from harness.config.plan import RunPlan
from harness.config.presets import BackboneSpec
from harness.errors import UserError, first_line, is_out_of_memory
from harness.evaluation.model import EvaluationFailedError
from harness.processes import ALONE, Processes
from harness.records import (
    BackboneInfo,
    Data,
    Diagnostics,
    Energy,
    Environment,
    Loss,
    Metric,
    Parameters,
    PeakMemory,
    Record,
    Sample,
    Times,
    Truncated,
    collect_environment,
    collect_git,
)
from harness.run.measured import TrainResult
from harness.run.step import TrainingFailedError
from harness.tasks.contract import Evaluation

NOT_TRAINED = "nothing is trained"
NO_ACCURACY = "random weights have no accuracy"
NO_CHOICES = "the task has no choices to read"
NOT_REPORTED = "not reported by this platform"
WARMUP_STEPS = 3
"""How many first optimiser steps the step times leave out, because allocation, autotuning and caches settle then."""


@dataclass
class Outcome:
    """What a run has measured so far. The run fills it in as it goes on.

    Attributes:
        data_s: seconds spent on reading and checking the data.
        load_s: seconds spent on loading the backbone and attaching the method.
        parameters: parameter counts of the method; None for the oracle.
        training: losses and times of training.
        train_truncated: number of training examples that were cut to `max_length`.
        evaluation: metrics and predictions.
        peak: peak memory.
        eval_joules: energy of the GPU in evaluation; None if it is not reported, or was not for all of it.
        diagnostics: what the method shows of its inside; None if it shows nothing.
        inside_s: seconds spent on these; None if there are none.
        write_s: seconds spent on writing adapter, samples, predictions and history.
        problems: what could not be scored or written, one line each; the run has then failed, whatever else went well.
    """

    data_s: float
    load_s: float | None = None
    parameters: Parameters | None = None
    training: TrainResult = field(default_factory=TrainResult)
    train_truncated: int | None = None
    evaluation: Evaluation | None = None
    peak: PeakMemory = field(default_factory=PeakMemory)
    eval_joules: float | None = None
    diagnostics: Diagnostics | None = None
    inside_s: float | None = None
    write_s: float = 0.0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        status: as in the record.
        error: one line on why it did not complete.
        step: the optimiser step at which training failed, counted from 1.
    """

    status: Literal["completed", "failed", "interrupted"] = "completed"
    error: str | None = None
    step: int | None = None

    @classmethod
    def of(cls, failure: BaseException) -> Self:
        """Return how a run ended that raised `failure`; print the traceback of a failure that nobody foresaw.

        Args:
            failure: what was raised.
        """
        if isinstance(failure, TrainingFailedError):
            return cls("failed", str(failure), failure.step)
        if isinstance(failure, EvaluationFailedError | UserError):
            return cls("failed", first_line(failure))
        if is_out_of_memory(failure):
            advice = "without --micro-batch a run halves its batches by itself, and --dry-run names further options"
            return cls("failed", f"out of memory: {first_line(failure)}; {advice}")
        traceback.print_exception(failure)
        return cls("failed", f"{type(failure).__name__}: {(str(failure).splitlines() or ['no message'])[0]}")


class Identity(TypedDict):
    """The fields that identify the run of a record."""

    spec_hash: str
    model: str
    task: str
    data: Data
    backbone: BackboneInfo


def make_record(
    plan: RunPlan,
    outcome: Outcome,
    ending: Ending,
    device: torch.device,
    identity: Identity,
    samples: Sequence[Sample] = (),
    processes: Processes = ALONE,
) -> Record:
    """Return the record of a run.

    Args:
        plan: the run as planned.
        outcome: what was measured.
        ending: how the run ended.
        device: the device of the run.
        identity: the fields that identify the run.
        samples: captions that are kept in the record, for people to look at.
        processes: those that made the run together. If others trained in its stead, the record has the number of those.
    """
    training, evaluation = outcome.training, outcome.evaluation
    trained = not plan.is_oracle
    environment = collect_environment(
        gpu=gpu_name(device),
        threads=torch.get_num_threads(),
        method=plan.method,
        processes=processes.count if training.processes is None else training.processes,
        sharded=processes.are_in_step if training.sharded is None else training.sharded,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        quantised=identity["backbone"].quantize is not None,
        earlier=training.earlier,
    )
    return Record(
        **identity,
        kind="train" if trained else "oracle",
        method=plan.method,
        variant=plan.variant,
        seed=plan.seed,
        config=plan.resolved(),
        tuning=plan.recipe.tuning if trained else "",
        metrics=_metrics(evaluation, identity["backbone"]),
        parse_failures=None if evaluation is None else evaluation.failures,
        truncated=Truncated(train=outcome.train_truncated, eval=evaluation.truncated if evaluation else None),
        samples=list(samples),
        parameters=outcome.parameters,
        times_s=_times(outcome),
        steps=len(training.steps) if trained else None,
        epochs=training.epochs if trained else None,
        micro_batch=training.micro_batch,
        loss=Loss(first=training.losses[0], last=training.losses[-1]) if training.steps else None,
        energy_joules=Energy(train=training.joules, eval=outcome.eval_joules),
        peak_memory_bytes=outcome.peak,
        environment=environment,
        git=collect_git(),
        status=ending.status,
        error=ending.error,
        failed_step=ending.step,
        missing=_missing(trained, outcome, environment) if ending.status == "completed" else {},
    )


def describe_backbone(backbone: Backbone, spec: BackboneSpec) -> BackboneInfo:
    """Return the `backbone` section of a record. This hashes the weights, which takes a while for a large backbone.

    Args:
        backbone: the loaded backbone, before a method is attached.
        spec: what it was loaded from.
    """
    name = f"{spec.base}-llm" if spec.shipped else spec.llm
    clip = f"{spec.base}-clip" if spec.shipped else spec.clip
    return BackboneInfo(
        llm=Path(name).name if name and Path(name).exists() else name or f"{spec.base} (random)",
        clip=clip if clip and not clip.startswith("local-dir:") else Path(clip or spec.base).name,
        weights=backbone.weights,
        weight_hash=backbone.fingerprint(),
        settings_hash=None if spec.packaged or backbone.weights == "random" else backbone.settings_hash(),
        hidden_size=backbone.hidden_size,
        num_layers=backbone.num_layers,
        vision_layers=backbone.vision.num_layers,
        dtype=dtype_name(backbone.dtype),
        quantize=spec.quantize,
    )


def _metrics(evaluation: Evaluation | None, backbone: BackboneInfo) -> dict[str, Metric]:
    if evaluation is None:
        return {}
    if backbone.weights == "random":
        return {name: Metric(value=None, n=metric.n, reason=NO_ACCURACY) for name, metric in evaluation.metrics.items()}
    return evaluation.metrics


def _missing(trained: bool, outcome: Outcome, environment: Environment) -> dict[str, str]:
    """Return the reason for each null field of a completed record."""
    missing: dict[str, str] = {}
    if environment.gpu is None:
        # An earlier process may have trained on a GPU that this one does not have.
        unknown = [name for name in ("cuda_allocated", "cuda_reserved") if getattr(outcome.peak, name) is None]
        missing |= {f"peak_memory_bytes.{name}": "no GPU" for name in unknown}
    if outcome.peak.rss is None:
        missing["peak_memory_bytes.rss"] = NOT_REPORTED
    if environment.cpu is None:
        missing["environment.cpu"] = NOT_REPORTED
    if outcome.evaluation is not None and outcome.evaluation.failures is None:
        missing["parse_failures"] = NO_CHOICES
    if not trained:
        missing |= {f"times_s.{name}": NOT_TRAINED for name in ("train", "train_step_median", "train_step_p90")}
        missing["truncated.train"] = NOT_TRAINED
    return missing


def _times(outcome: Outcome) -> Times:
    training, evaluation = outcome.training, outcome.evaluation
    settled = training.step_s[WARMUP_STEPS:] or training.step_s
    return Times(
        load=outcome.load_s,
        data=outcome.data_s,
        train_step_median=median(settled) if settled else None,
        train_step_p90=_p90(settled) if settled else None,
        train=training.total_s if settled else None,
        eval=evaluation.eval_s if evaluation else None,
        scoring=evaluation.scoring_s if evaluation else None,
        validation=training.validation_s if training.validations else None,
        inside=outcome.inside_s,
        write=outcome.write_s,
    )


def _p90(values: list[float]) -> float:
    return quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]
