"""One planned run: load, attach, train, evaluate, record. Whatever happens, the record says how the run ended."""

import gc
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed

from harness.backbone.loader import Backbone, load_backbone
from harness.backbone.machine import Machine
from harness.config.plan import RunPlan
from harness.config.presets import BackboneSpec
from harness.config.recipes import TrainRecipe
from harness.data.collate import Collator
from harness.data.images import STATISTICS, ImagePreprocessor
from harness.data.loading import Loading
from harness.errors import UserError, first_line
from harness.evaluation.answer_log import AnswerLog
from harness.evaluation.model import EvaluationFailedError
from harness.files import write_atomic
from harness.processes import Processes
from harness.records import (
    BackboneInfo,
    Diagnostics,
    Record,
    Sample,
    diagnostics_path,
    find_record,
    history_path,
    make_history,
    predictions_path,
    spec_hash,
    write_diagnostics,
    write_history,
    write_predictions,
    write_record,
)
from harness.run.attach import attach
from harness.run.captured import Captured
from harness.run.compiled import compiled_regions
from harness.run.diagnose import diagnose
from harness.run.energy import EnergyMeter
from harness.run.execution import Eager, Execution, MicroBatch
from harness.run.memory import read_peak, reset_peak
from harness.run.outcome import Ending, Identity, Outcome, describe_backbone, make_record
from harness.run.parameters import count_parameters
from harness.run.progress import Progress, Silent
from harness.run.schedule import training_length
from harness.run.step import TrainingFailedError
from harness.run.tracker import Tracker
from harness.run.train import train
from harness.run.watch import VALIDATED, Watch
from harness.run.workspace import Workspace
from harness.stopping import Stopped, stop_held_back
from harness.tasks.contract import Evaluation, Task
from harness.tasks.samples import keep_questions, keep_samples
from methods.checkpoint import load_adapter_state, save_adapter
from methods.tuned import TunedModel

SEEDS_APART = 1_000_003
"""Distance between the seeds of two processes of a run, so that no process of one seed repeats one of another seed."""


class Runner:
    """Makes runs on one backbone, task and machine.

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

    def backbone_info(self) -> BackboneInfo:
        """Return the `backbone` section of the records. The first call loads the weights to hash them."""
        if self._info is None:
            self._info = describe_backbone(self._load(), self.spec)
            gc.collect()  # quantised layers contain reference cycles, and a second backbone may not fit beside them
        return self._info

    def spec_of(self, plan: RunPlan) -> dict[str, Any]:
        """Return what is asked for of a run. Its hash identifies the run."""
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
            KeyboardInterrupt: a signal stopped the run, or nobody reads its output any more. The record is written.
            UserError: the record cannot be written.
        """
        # Hash the weights first: a second backbone next to the trained one might not fit into memory.
        self.backbone_info()
        outcome = Outcome(self.data_s)
        self.processes.broadcast(plan)
        try:
            self._measure(plan, outcome, progress)
        except BrokenPipeError as pipe:
            self._write(plan, outcome, Ending("interrupted", "interrupted: nobody reads the output any more"))
            raise Stopped(signal.SIGPIPE) from pipe
        except KeyboardInterrupt as stop:
            by = f"by {stop}" if isinstance(stop, Stopped) else "by the user"
            self._write(plan, outcome, Ending("interrupted", f"interrupted {by}"))
            raise
        except Exception as failure:
            # A failure of one run, or too little memory for it, must not stop the others. A launcher that finds one
            # process dead stops the others at once, so a stop may come now; the record is written first.
            with stop_held_back():
                return self._write(plan, outcome, _ending_of(failure))
        finally:
            # A wrapped backbone contains reference cycles, and the next run loads a backbone of its own.
            gc.collect()
            torch.cuda.empty_cache()
        with stop_held_back():
            return self._write(plan, outcome, Ending())

    @contextmanager
    def announced_end(self) -> Iterator[None]:
        """Tell the processes that follow this one that no further run comes, when the context is left.

        A signal goes to all of them, so then there is nothing to tell.
        """
        try:
            yield
        except Exception:
            self.processes.broadcast(None)
            raise
        self.processes.broadcast(None)

    def follow(self) -> None:
        """Make each run that the first process announces, together with it, until it announces the end.

        The first process alone writes files. If a run fails here, the first process learns the reason and records it.

        Raises:
            KeyboardInterrupt: a signal stopped the run.
        """
        while (plan := self.processes.broadcast(None)) is not None:
            outcome = Outcome(self.data_s)
            with suppress(Exception):
                self._measure(plan, outcome, Silent())
            del outcome
            gc.collect()
            torch.cuda.empty_cache()

    def record_failure(self, plan: RunPlan, error: str) -> Record:
        """Record that a run failed in another process, which could not write the record itself.

        Args:
            plan: the run.
            error: one line on why it failed.

        Raises:
            UserError: the record cannot be written.
        """
        return self._write(plan, Outcome(self.data_s), Ending("failed", error))

    def _load(self) -> Backbone:
        machine = self.machine
        return load_backbone(self.spec, weights=machine.weights, device=machine.device, dtype=machine.dtype)

    def _measure(self, plan: RunPlan, outcome: Outcome, progress: Progress) -> None:
        """Load, train and evaluate; fill `outcome` on the way."""
        progress.plan(self._phases(plan))
        reset_peak(self.machine.device)
        set_seed(plan.seed)
        begun = time.perf_counter()
        with self.processes.together():
            backbone = self._load()
            method = attach(plan, backbone)
            model = TunedModel(backbone, method.to(self.machine.device))
        if not self.processes.is_main:
            # All processes have initialised the method with the same numbers. Their dropout must differ.
            set_seed((plan.seed + self.processes.rank * SEEDS_APART) % 2**32)
        outcome.load_s = time.perf_counter() - begun
        outcome.parameters = None if plan.is_oracle else count_parameters(backbone, method)
        recipe = plan.recipe
        mean, std = STATISTICS[recipe.image_statistics]
        preprocessor = ImagePreprocessor(backbone.vision.image_size, mean, std)
        meter = EnergyMeter(self.machine.device)
        if not plan.is_oracle:
            self._train_or_load(plan, model, preprocessor, outcome, progress, meter)
        progress.start("evaluating", self.task.evaluation_size(recipe))
        evaluate = self.task.evaluate_oracle if plan.is_oracle else self.task.evaluate
        log = AnswerLog(self.workspace(plan).answers)
        before = meter.joules()
        outcome.evaluation = evaluate(model, recipe, preprocessor, progress.advance, log, self.loading)
        after = meter.joules()
        outcome.eval_joules = None if before is None or after is None else after - before
        outcome.peak = read_peak(self.machine.device)
        if self.backbone_info().weights != "random":
            outcome.diagnostics = self._diagnose(plan, model, preprocessor, outcome.evaluation)

    def _diagnose(
        self, plan: RunPlan, model: TunedModel, preprocessor: ImagePreprocessor, evaluation: Evaluation
    ) -> Diagnostics | None:
        """Return what the method shows of its inside on the evaluated images; None if it shows nothing."""
        kept = {image.qid for image, _ in evaluation.shown} | {question.qid for question in evaluation.questions}
        return diagnose(
            model,
            self.task.pictured(plan.recipe),
            kept,
            preprocessor,
            plan.recipe.eval_batch_size,
            self.workspace(plan).spec_hash,
            self.loading,
        )

    def _phases(self, plan: RunPlan) -> dict[str, int]:
        """Return the phases of a run that show progress, with their numbers of samples."""
        evaluated = {"evaluating": self.task.evaluation_size(plan.recipe)}
        if plan.is_oracle:
            return evaluated
        return {"training": round(plan.recipe.epochs * len(self.task.train_examples(plan.recipe))), **evaluated}

    def workspace(self, plan: RunPlan) -> Workspace:
        """Return the folder that a run works in until it is complete."""
        digest = spec_hash(self.spec_of(plan))
        run = Path(self.task.name, self.spec.name, plan.label, f"seed{plan.seed}-{digest}")
        return Workspace(self.results_dir, run, digest)

    def _train_or_load(
        self,
        plan: RunPlan,
        model: TunedModel,
        preprocessor: ImagePreprocessor,
        outcome: Outcome,
        progress: Progress,
        meter: EnergyMeter,
    ) -> None:
        """Train the model in place, or load the adapter where training finished in an earlier process."""
        work = self.workspace(plan)
        finished = None
        if self.processes.is_main and (finished := work.finished_training()):
            try:
                load_adapter_state(work.adapter, model.method)
            except ValueError as error:
                progress.say(f"{first_line(error)}; training again")
                finished = None
            else:
                progress.say(f"training is finished; loading {work.adapter}")
        finished = self.processes.broadcast(finished)
        # A new adapter is the same everywhere already, and one that is loaded has been read by the first process only.
        self.processes.share(model.method)
        if finished is not None:
            outcome.training, outcome.train_truncated = finished.measured, finished.truncated
            return
        self._train(plan, model, preprocessor, outcome, progress, meter, work)
        if not self.processes.is_main:
            return
        begun = time.perf_counter()
        try:
            assert outcome.train_truncated is not None, "training counts what it cuts"
            work.keep_training(
                outcome.training, outcome.train_truncated, lambda folder: self._save(plan, model.method, folder)
            )
        except UserError as error:
            # Evaluation does not need the file, and its results are worth having without it.
            outcome.problems.append(f"adapter: {error}")
        outcome.write_s += time.perf_counter() - begun

    def _train(
        self,
        plan: RunPlan,
        model: TunedModel,
        preprocessor: ImagePreprocessor,
        outcome: Outcome,
        progress: Progress,
        meter: EnergyMeter,
        work: Workspace,
    ) -> None:
        """Train the model in place, from the newest checkpoint if there is one."""
        recipe = plan.recipe
        examples = self.task.train_examples(recipe)
        collator = Collator(model.backbone.tokenizer, preprocessor, recipe.max_length)
        if recipe.gradient_checkpointing:
            model.llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        progress.start("training", training_length(len(examples), recipe).steps)
        name = f"{self.task.name}/{self.spec.name}/{plan.name}"
        is_main = self.processes.is_main
        tracker = Tracker(
            self.tracker if is_main else "", work.tracker, name, {"seed": plan.seed, **plan.resolved()}, progress.say
        )
        watch = Watch(
            progress,
            outcome.training,
            meter,
            tracker,
            self.eval_every,
            lambda: self._validate(model, recipe, preprocessor),
            model,
        )
        micro_batch = MicroBatch.of(self.micro_batch, recipe.batch_size)
        try:
            with self._execution(recipe, model, micro_batch) as execution:
                train(
                    model,
                    examples,
                    collator,
                    recipe,
                    self.machine.device,
                    plan.seed,
                    watch,
                    outcome.training,
                    work.checkpoints(self.checkpoint_minutes) if is_main else None,
                    progress.say,
                    micro_batch,
                    self.processes,
                    self.loading,
                    execution=execution,
                )
        finally:
            watch.read_energy()
            tracker.close()
            outcome.train_truncated = collator.truncated

    def _validate(self, model: TunedModel, recipe: TrainRecipe, preprocessor: ImagePreprocessor) -> tuple[float, int]:
        """Return the accuracy on a part of the validation split, and the size of the part."""
        # Prompts have many lengths, and each would be compiled where training compiles its layers.
        with torch.compiler.set_stance("force_eager"):
            return self.task.validate(model, recipe, preprocessor, VALIDATED)

    @contextmanager
    def _execution(self, recipe: TrainRecipe, model: TunedModel, micro_batch: MicroBatch) -> Iterator[Execution]:
        """Give what runs the passes of training. Behind the context the model is not compiled."""
        if not recipe.captured:
            yield Eager(model, self.machine.device)
            return
        with compiled_regions(model):
            yield Captured(model, self.machine.device, micro_batch)

    def _save(self, plan: RunPlan, method: Any, folder: Path) -> None:
        """Write the trained adapter into a folder."""
        info = self.backbone_info()
        # The path of a packaged backbone is that of an installed package, so it is not recorded.
        parts = {} if self.spec.packaged else {"llm": self.spec.llm, "clip": self.spec.clip}
        parts |= {"quantize": info.quantize} if info.quantize else {}
        extra = {
            "backbone": {"model": self.spec.name, **parts, "weight_hash": info.weight_hash, "dtype": info.dtype},
            "task": self.task.name,
            "train": plan.recipe.model_dump(mode="json"),
        }
        save_adapter(folder, method, extra, write_atomic)

    def _write(self, plan: RunPlan, outcome: Outcome, ending: Ending) -> Record:
        """Write samples, predictions, the adapter and, last, the record; return the record.

        A part that cannot be written is named in the record, and the run has failed. A record that is not complete
        never replaces a complete one: it is written into the run's workspace.

        Raises:
            UserError: the record cannot be written.
        """
        work = self.workspace(plan)
        before = find_record(self.results_dir, work.spec_hash)
        replaces_better = ending.status != "completed" and before is not None and before.status == "completed"
        begun = time.perf_counter()
        samples = [] if replaces_better else self._write_parts(plan, outcome, ending, work)
        outcome.write_s += time.perf_counter() - begun
        if ending.status == "completed" and outcome.problems:
            ending = Ending("failed", "; ".join(outcome.problems))
        record = self._record(plan, outcome, ending, samples)
        if replaces_better:
            write_atomic(work.folder / "record.json", record.model_dump_json(indent=2) + "\n")
        else:
            # The record is written last, so a run with a complete record has all its files.
            write_record(record, self.results_dir)
        if record.status == "completed":
            work.remove()
        return record

    def _record(self, plan: RunPlan, outcome: Outcome, ending: Ending, samples: Sequence[Sample]) -> Record:
        identity: Identity = {
            "spec_hash": spec_hash(self.spec_of(plan)),
            "model": self.spec.name,
            "task": self.task.name,
            "data": self.task.data(plan.recipe),
            "backbone": self.backbone_info(),
        }
        return make_record(plan, outcome, ending, self.machine.device, identity, samples, self.processes.count)

    def require_recordable(self, plan: RunPlan) -> None:
        """Check that a record of the run can be made, by making and reading one that says nothing was done.

        Raises:
            ValidationError: a value that identifies the run has no place in a record, which is a mistake of this code.
        """
        record = self._record(plan, Outcome(self.data_s), Ending("interrupted", "not begun"), [])
        Record.model_validate_json(record.model_dump_json())

    def _write_parts(self, plan: RunPlan, outcome: Outcome, ending: Ending, work: Workspace) -> list[Sample]:
        """Write what belongs to the record; note in the outcome what cannot be written."""
        # Answers from random weights mean nothing, so they are not kept.
        answered = None if self.backbone_info().weights == "random" else outcome.evaluation
        samples: list[Sample] = []
        if answered is not None:
            with _part("samples", outcome):
                data = self.task.data(plan.recipe)
                samples = keep_samples(answered.shown, self.task.name, data, self.results_dir)
                if plan.recipe.eval_split == "test":  # those of other splits stand in no table
                    keep_questions(answered.questions, self.task.name, data, self.results_dir)
        path = self.results_dir / "records" / work.run.with_suffix(".json")
        with _part("history", outcome):
            if outcome.training.steps:
                training = outcome.training
                write_history(path, make_history(work.spec_hash, training.steps, training.validations))
            else:
                history_path(path).unlink(missing_ok=True)
        with _part("diagnostics", outcome):
            if outcome.diagnostics is not None:
                write_diagnostics(path, outcome.diagnostics)
            else:
                diagnostics_path(path).unlink(missing_ok=True)
        with _part("predictions", outcome):
            if answered is not None:
                write_predictions(path, answered.rows)
            else:
                predictions_path(path).unlink(missing_ok=True)
        if ending.status == "completed" and not plan.is_oracle and not outcome.problems:
            with _part("adapter", outcome):
                work.publish_adapter()
        return samples


@contextmanager
def _part(name: str, outcome: Outcome) -> Iterator[None]:
    """Note in the outcome that a part cannot be written, and go on."""
    try:
        yield
    except (UserError, OSError) as error:
        outcome.problems.append(f"{name}: {first_line(error)}")


def _ending_of(failure: Exception) -> Ending:
    """Return how a run ended that raised `failure`; print the traceback of a failure that nobody foresaw."""
    if isinstance(failure, TrainingFailedError):
        return Ending("failed", str(failure), failure.step)
    if isinstance(failure, EvaluationFailedError | UserError):
        return Ending("failed", first_line(failure))
    if isinstance(failure, torch.cuda.OutOfMemoryError):
        return Ending("failed", f"out of GPU memory: {first_line(failure)}; give a smaller --micro-batch")
    traceback.print_exception(failure)
    return Ending("failed", f"{type(failure).__name__}: {(str(failure).splitlines() or ['no message'])[0]}")
