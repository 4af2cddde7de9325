"""How long a run takes: from records of this kind of device where there are any, else from a short measurement.

The time of a run is that of its optimiser steps and of its answers; loading and scoring are small beside them.
"""

import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from harness.backbone.language_model import llm_size
from harness.backbone.loader import load_backbone
from harness.backbone.machine import Machine, dtype_name, gpu_name
from harness.backbone.requirements import free_memory
from harness.config.plan import RunPlan
from harness.config.presets import PRESETS, BackboneSpec
from harness.data.collate import Collator
from harness.data.images import STATISTICS, ImagePreprocessor
from harness.errors import UserError, is_out_of_memory
from harness.evaluation.model import EvaluationFailedError
from harness.processes import launched_processes, shards
from harness.records import Record, collect_environment, read_records
from harness.run.attach import attach
from harness.run.execution import Eager, MicroBatch
from harness.run.optimiser import adamw
from harness.run.step import OptimiserStep, TrainingFailedError, collate_micro_batches
from harness.tasks.contract import Task
from methods.tuned import TunedModel

MEASURED_STEPS = 3
MEASURED_S = 10.0
"""A measurement ends after this many steps, or after the step in which this many seconds have passed."""
_COSTLESS = {"epochs", "warmup_epochs", "base_lr", "min_lr", "weight_decay", "betas", "image_statistics", "eval_split"}
"""The settings of a recipe that change neither how long a step takes nor how long an answer takes."""
LARGEST_MEASURED = 2**30
"""Largest size of a language model, in bytes, that is measured on a CPU: a step of a larger one takes too long."""


@dataclass(frozen=True)
class Pace:
    """How fast a run is expected to be.

    Attributes:
        step_s: seconds per optimiser step.
        answer_s: seconds per sample of the evaluation; None if nothing tells.
        source: where the numbers come from, in a few words.
    """

    step_s: float
    answer_s: float | None
    source: str


class Paces:
    """Finds how fast runs are on this machine.

    Args:
        spec: the backbone.
        machine: the device and dtype.
        threads: compute threads of a run.
        results_dir: folder of the records.
        task: the task, with its data read; None without data, when nothing can be measured.
        loadable: whether the weights are on this machine.
        is_here: whether the runs are made on this machine. Of a GPU of another one nothing is known, so records of any
            GPU tell, and nothing is measured.

    Raises:
        UserError: a record is bad.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        machine: Machine,
        threads: int,
        results_dir: Path,
        task: Task | None,
        loadable: bool,
        is_here: bool = True,
    ) -> None:
        self._spec, self._machine, self._task = spec, machine, task
        processes, is_deterministic = launched_processes(), torch.are_deterministic_algorithms_enabled()
        # One process alone cannot measure how fast several are together.
        self._can_measure = (
            is_here and task is not None and processes == 1 and (loadable or machine.weights == "random")
        )
        self._is_here = is_here
        self._is_as_in_speed = processes == 1 and not is_deterministic
        here = collect_environment(gpu=gpu_name(machine.device) if is_here else None, threads=threads)
        made_so = (processes, shards() > 1, is_deterministic)

        def is_alike(record: Record) -> bool:
            there = record.environment
            if not is_here:
                same = there.gpu is not None
            elif here.gpu:
                same = there.gpu == here.gpu
            else:
                same = (there.gpu, there.cpu, there.threads) == (None, here.cpu, threads)
            told = zip((there.processes, there.sharded, there.deterministic), made_so, strict=True)
            same = same and all(found in (None, asked) for found, asked in told)
            return same and record.backbone.dtype == dtype_name(machine.dtype) and record.status == "completed"

        self._records = [record for record in read_records(results_dir) if is_alike(record)]
        self._measured: dict[str, Pace | None] = {}

    def of(self, plan: RunPlan, micro_batch: int | None, fitting: int | None) -> Pace | None:
        """Return the pace of a run; None if it cannot be known.

        Args:
            plan: the run; not the oracle.
            micro_batch: samples per forward pass; None for the largest that fits.
            fitting: the same, with an estimate of the largest in place of None; None if there is none.
        """
        if found := self._from_runs(plan, fitting) or self._from_speed(plan):
            return found
        if not self._can_measure or self._is_too_large():
            return None
        if plan.label not in self._measured:
            assert self._task is not None, "nothing is measured without data"
            try:
                self._measured[plan.label] = measure(plan, self._spec, self._machine, self._task, micro_batch)
            finally:
                # What torch keeps of the measured model would be missing from the free memory of the next rows.
                gc.collect()
                torch.cuda.empty_cache()
        return self._measured[plan.label]

    def _from_runs(self, plan: RunPlan, micro_batch: int | None) -> Pace | None:
        """Return the pace of the newest run with this method and data set that was made in the same way."""
        data = None if self._task is None else self._task.data(plan.recipe).name
        for record in sorted(self._records, key=lambda record: record.created, reverse=True):
            step_s = record.times_s.train_step_median
            same = (record.kind, record.label, record.model) == ("train", plan.label, self._spec.name)
            if not same or step_s is None or record.data.name != data:
                continue
            if _is_made_so(record, plan, micro_batch):
                answers = max((metric.n for metric in record.metrics.values()), default=0)
                seconds = record.times_s.eval
                answer_s = seconds / answers if seconds is not None and answers else None
                return Pace(step_s, answer_s, f"a run record{self._where(record)}")
        return None

    def _from_speed(self, plan: RunPlan) -> Pace | None:
        """Return the pace that the newest speed record of this method with these sizes tells.

        It tells nothing of answers of another length than those that were timed, nor of steps that `speed` never times:
        those of several processes, with deterministic algorithms, or with layers that are recomputed.
        """
        if plan.recipe.gradient_checkpointing or not self._is_as_in_speed:
            return None
        for record in sorted(self._records, key=lambda record: record.created, reverse=True):
            speed = record.speed
            if speed is None or speed.implementation != "shipped" or speed.loaded or record.label != plan.label:
                continue
            part = PRESETS[record.model].part_of if record.model in PRESETS else None
            if self._spec.name not in (record.model, part) or speed.setting is None:
                continue
            if not _has(record.config.get("method"), _method_settings(plan)):
                continue
            train, inference, setting = speed.phases.get("train"), speed.phases.get("inference"), speed.setting
            if train is None:
                continue
            whole = record.model == self._spec.name
            train_s = train.median_s if whole else train.whole_s
            answers_s = None
            if inference is not None and not setting.compiled:  # a run compiles its training only
                answers_s = inference.median_s if whole else inference.whole_s
            if train_s is not None:
                is_as_long = plan.recipe.decoded_tokens == setting.new_tokens
                answer_s = answers_s / setting.eval_batch if is_as_long and answers_s is not None else None
                source = f"a speed record{self._where(record)} at {setting.text_length} tokens"
                if setting.compiled != plan.recipe.captured:
                    source += ", compiled" if setting.compiled else ", not compiled"
                return Pace(train_s * plan.recipe.batch_size / setting.train_batch, answer_s, source)
        return None

    def _where(self, record: Record) -> str:
        return "" if self._is_here else f" of {record.environment.gpu}"

    def _is_too_large(self) -> bool:
        size = llm_size(self._spec, self._machine.dtype).bytes
        return size > (
            LARGEST_MEASURED if self._machine.device.type == "cpu" else free_memory(self._machine.device) / 2
        )


def _is_made_so(record: Record, plan: RunPlan, micro_batch: int | None) -> bool:
    """Return whether a run was made with the settings of a plan, as far as its record tells.

    Args:
        record: the record of the run.
        plan: the plan.
        micro_batch: samples per forward pass; None for any number.
    """
    recipe = plan.recipe.model_dump(mode="json", exclude={"tuning", *_COSTLESS})
    same = _has(record.recipe, recipe) and _has(record.config.get("method"), _method_settings(plan))
    return same and (micro_batch is None or record.micro_batch in (None, micro_batch))


def _method_settings(plan: RunPlan) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = plan.resolved()["method"]
    return settings


def _has(recorded: object, asked: Mapping[str, Any]) -> bool:
    """Return whether recorded settings are those that are asked for. Those that a record does not tell are."""
    found = recorded if isinstance(recorded, Mapping) else {}
    return all(found.get(name, value) == value for name, value in asked.items())


def measure(
    plan: RunPlan, spec: BackboneSpec, machine: Machine, task: Task, micro_batch: int | None = None
) -> Pace | None:
    """Make a few optimiser steps and answer a few problems, and return their pace; None if they fail.

    The passes run eagerly, also where the run itself replays graphs, which is faster.

    Args:
        plan: the run; not the oracle.
        spec: the backbone.
        machine: device, dtype and kind of weights.
        task: the task, with its data read.
        micro_batch: samples per forward pass; None for the largest that fits.

    Raises:
        UserError: the backbone cannot be loaded, the method cannot be built, or an image cannot be read.
    """
    backbone = load_backbone(spec, weights=machine.weights, device=machine.device, dtype=machine.dtype)
    recipe = plan.recipe
    model = TunedModel(backbone, attach(plan, backbone).to(machine.device))
    preprocessor = ImagePreprocessor(backbone.vision.image_size, *STATISTICS[recipe.image_statistics])
    collator = Collator(model.backbone.tokenizer, preprocessor, recipe.max_length)
    model.train()
    size = MicroBatch.of(micro_batch, recipe.batch_size)
    optimise = OptimiserStep(
        Eager(model, machine.device),
        adamw(model, recipe),
        size,
        recipe.max_grad_norm,
        machine.device,
        lambda line: None,
    )
    examples, draw = task.train_examples(recipe), random.Random(0)

    def step() -> float:
        chosen = draw.sample(examples, min(recipe.batch_size, len(examples)))
        batches = collate_micro_batches(chosen, collator, size.size)
        begun = time.perf_counter()
        optimise(batches, rate=0.0, step=1)
        return time.perf_counter() - begun

    try:
        step()  # allocation and caches settle
        times = _repeated(step)
        model.eval()
        answer_s = _answer_s(task, model, plan, preprocessor)
    except RuntimeError as error:
        if not isinstance(error, TrainingFailedError) and not is_out_of_memory(error):
            raise
        return None
    return Pace(median(times), answer_s, "a short measurement")


def _repeated(step: Callable[[], float]) -> Sequence[float]:
    times: list[float] = []
    while len(times) < MEASURED_STEPS and sum(times) < MEASURED_S:
        times.append(step())
    return times


def _answer_s(task: Task, model: TunedModel, plan: RunPlan, preprocessor: ImagePreprocessor) -> float | None:
    """Return the seconds per answer; None for a task without right answers, or without a validation split."""
    begun = time.perf_counter()
    try:
        _, answered = task.validate(model, plan.recipe, preprocessor, plan.recipe.eval_batch_size)
    except (UserError, EvaluationFailedError):
        return None
    return (time.perf_counter() - begun) / answered
