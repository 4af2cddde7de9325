"""The phases of one run: load and attach, train, evaluate, and look at the method's inside."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils import set_seed

from harness.backbone.machine import gpu_name
from harness.config.plan import RunPlan
from harness.data.collate import Collator
from harness.data.images import STATISTICS, ImagePreprocessor
from harness.errors import UserError, first_line
from harness.evaluation.answer_log import AnswerLog
from harness.files import write_atomic
from harness.records import collect_maker
from harness.run.attach import attach
from harness.run.captured import Captured
from harness.run.compiled import compiled_regions
from harness.run.diagnose import diagnose, looked_at
from harness.run.energy import EnergyMeter
from harness.run.execution import Eager, Execution, MicroBatch
from harness.run.memory import largest_peak, read_peak, reset_peak
from harness.run.outcome import Ending, Outcome
from harness.run.parameters import count_parameters
from harness.run.progress import Progress
from harness.run.schedule import training_length
from harness.run.setup import Setup
from harness.run.sharded import InStep, ShardedModel
from harness.run.tracker import Tracker
from harness.run.train import Callbacks, Resources, Training
from harness.run.watch import VALIDATED, Watch
from harness.run.workspace import FinishedTraining
from harness.tasks.contract import ScoringFailedError
from methods.checkpoint import load_adapter_state, save_adapter
from methods.tuned import TunedModel

SEEDS_APART = 1_000_003
"""Distance between the seeds of two processes of a run, so that no process of one seed repeats one of another seed."""


def measure(setup: Setup, plan: RunPlan, outcome: Outcome, progress: Progress) -> None:
    """Make a run, without writing its record.

    Args:
        setup: what the run is made on.
        plan: the run.
        outcome: filled in on the way, so that a run that stops early keeps its measurements.
        progress: receives how far the run is.

    Raises:
        TrainingFailedError: the loss is NaN or infinite.
        EvaluationFailedError: the model's logits are NaN or infinite.
        OtherProcessFailedError: the run failed in another process.
        UserError: the run cannot be made as it is planned.
    """
    progress.plan(_phases(setup, plan))
    reset_peak(setup.machine.device)
    run = _Run(setup, plan, outcome, progress)
    if not plan.is_oracle:
        run.train_or_load()
    run.evaluate()
    run.look_inside()


def _phases(setup: Setup, plan: RunPlan) -> dict[str, int]:
    """Return the phases of a run that show progress, with their numbers of samples."""
    evaluated = {"evaluating": setup.task.evaluation_size(plan.recipe)}
    if plan.is_oracle:
        return evaluated
    return {"training": round(plan.recipe.epochs * len(setup.task.train_examples(plan.recipe))), **evaluated}


class _Run:
    """A run whose model is loaded. Its methods are the phases, in their order.

    Args:
        setup, plan, outcome, progress: as in `measure`.
    """

    def __init__(self, setup: Setup, plan: RunPlan, outcome: Outcome, progress: Progress) -> None:
        self.setup, self.plan, self.outcome, self.progress = setup, plan, outcome, progress
        self.recipe, self.task, self.processes = plan.recipe, setup.task, setup.processes
        self.model = self._load()
        mean, std = STATISTICS[self.recipe.image_statistics]
        self.preprocessor = ImagePreprocessor(self.model.backbone.vision.image_size, mean, std)
        # The first process alone writes, and knows nothing of the energy of the others' GPUs.
        self.meter = EnergyMeter(setup.machine.device if self.processes.count == 1 else torch.device("cpu"))
        self.work = setup.workspace(plan)

    def _load(self) -> TunedModel:
        """Load the backbone and attach the method."""
        plan, outcome, processes = self.plan, self.outcome, self.processes
        with processes.together():
            # A process that follows the first one hashes the weights here in its first run: before a model takes up
            # the memory, and before the seed is set, which it would otherwise draw numbers from.
            self.setup.backbone_info()
        set_seed(plan.seed)
        begun = time.perf_counter()
        with processes.together():
            backbone = self.setup.load()
            method = attach(plan, backbone).to(self.setup.machine.device)
        if processes.are_in_step:
            model: TunedModel = ShardedModel(backbone, method, self.setup.machine.device, processes, self.progress.say)
        else:
            model = TunedModel(backbone, method)
        if not processes.is_main:
            # All processes have initialised the method with the same numbers. Their dropout must differ.
            set_seed((plan.seed + processes.rank * SEEDS_APART) % 2**32)
        outcome.load_s = time.perf_counter() - begun
        outcome.parameters = None if plan.is_oracle else count_parameters(backbone, method)
        return model

    def train_or_load(self) -> None:
        """Train the model in place, or load the adapter where training finished in an earlier process."""
        finished = self.processes.broadcast(self._load_finished() if self.processes.is_main else None)
        # A new adapter is the same everywhere already, and one that is loaded has been read by the first process only.
        self.processes.share(self.model.method)
        if finished is not None:
            self.outcome.training, self.outcome.train_truncated = finished.measured, finished.truncated
            self._go_on()
            return
        self._train()
        if self.processes.is_main:
            self._keep_adapter()

    def _load_finished(self) -> FinishedTraining | None:
        """Load the adapter that training left in an earlier process, and return what it measured; None if none did."""
        finished = self.work.finished_training()
        if finished is None:
            return None
        try:
            load_adapter_state(self.work.adapter, self.model.method)
        except ValueError as error:
            self.progress.say(f"{first_line(error)}; training again")
            return None
        self.progress.say(f"training is finished; loading {self.work.adapter}")
        return finished

    def _train(self) -> None:
        """Train the model in place, from the newest checkpoint if there is one."""
        setup, plan, recipe, model = self.setup, self.plan, self.recipe, self.model
        progress, training = self.progress, self.outcome.training
        is_main = self.processes.is_main
        examples = self.task.train_examples(recipe)
        collator = Collator(model.backbone.tokenizer, self.preprocessor, recipe.max_length)
        if recipe.gradient_checkpointing:
            model.llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        progress.start("training", training_length(len(examples), recipe).steps, setup.eval_every)
        name = f"{self.task.name}/{setup.spec.name}/{plan.name}"
        settings = {"seed": plan.seed, **plan.resolved()}
        tracker = Tracker(setup.tracker if is_main else "", self.work.tracker, name, settings, progress.say)
        watch = Watch(progress, training, self.meter, tracker, setup.eval_every, self._validate, model)
        callbacks = Callbacks(watch, watch.validate_if_due, progress.say)
        micro_batch = MicroBatch.of(setup.micro_batch, recipe.batch_size, self.processes.count)
        checkpoints = self.work.checkpoints(setup.checkpoint_minutes) if is_main else None
        try:
            with self._execution(micro_batch) as execution:
                resources = Resources(setup.machine.device, self.processes, setup.loading, micro_batch, execution)
                Training(model, examples, collator, recipe, plan.seed, resources, callbacks, training, checkpoints).run(
                    self._go_on
                )
        finally:
            watch.read_energy()
            tracker.close()
            self.outcome.train_truncated = collator.truncated

    def _go_on(self) -> None:
        """Note with which code and on which machine the run goes on from here."""
        if self.outcome.training.goes_on(collect_maker(gpu_name(self.setup.machine.device))):
            self.progress.say("going on with other code or on another machine; the record names both")

    def _validate(self) -> tuple[float, int]:
        """Return the accuracy on a part of the validation split, and the size of the part."""
        # Prompts have many lengths, and each would be compiled where training compiles its layers.
        with torch.compiler.set_stance("force_eager"):
            return self.task.validate(self.model, self.recipe, self.preprocessor, VALIDATED)

    @contextmanager
    def _execution(self, micro_batch: MicroBatch) -> Iterator[Execution]:
        """Give what runs the passes of training. Behind the context the model is not compiled."""
        model, device = self.model, self.setup.machine.device
        if isinstance(model, ShardedModel):
            yield InStep(model, device, self.preprocessor, self.recipe.max_length)
            return
        if not self.recipe.captured:
            yield Eager(model, device)
            return
        with compiled_regions(model):
            captured = Captured(model, device, micro_batch)
            try:
                yield captured
            finally:
                captured.release()  # evaluation needs the memory

    def _keep_adapter(self) -> None:
        """Keep the trained adapter, so that training need not be repeated if the evaluation stops early."""
        outcome = self.outcome
        begun = time.perf_counter()
        try:
            assert outcome.train_truncated is not None, "training counts what it cuts"
            self.work.keep_training(outcome.training, outcome.train_truncated, self._save)
        except UserError as error:
            # Evaluation does not need the file, and its results are worth having without it.
            outcome.problems.append(f"adapter: {error}")
        outcome.write_s += time.perf_counter() - begun

    def _save(self, folder: Path) -> None:
        """Write the trained adapter into a folder."""
        info, spec = self.setup.backbone_info(), self.setup.spec
        # The path of a packaged backbone is that of an installed package, so it is not recorded.
        parts = {} if spec.packaged else {"llm": spec.llm, "clip": spec.clip}
        parts |= {"quantize": info.quantize} if info.quantize else {}
        extra = {
            "backbone": {"model": spec.name, **parts, "weight_hash": info.weight_hash, "dtype": info.dtype},
            "task": self.task.name,
            "train": self.recipe.model_dump(mode="json"),
        }
        save_adapter(folder, self.model.method, extra, write_atomic)

    def evaluate(self) -> None:
        """Decode and score the evaluation split, and read what the run needed."""
        task, recipe, outcome = self.task, self.recipe, self.outcome
        self.progress.start("evaluating", task.evaluation_size(recipe))
        evaluate = task.evaluate_oracle if self.plan.is_oracle else task.evaluate
        log = AnswerLog(self.work.answers)
        before = self.meter.joules()
        try:
            outcome.evaluation = evaluate(
                self.model, recipe, self.preprocessor, self.progress.advance, log, self.setup.loading
            )
        except ScoringFailedError as failure:
            # The answers are worth having without their scores.
            outcome.evaluation = failure.answered
            assert failure.__cause__ is not None, "the cause says why"
            outcome.problems.append(f"scoring: {Ending.of(failure.__cause__).error}")
        after = self.meter.joules()
        if before is not None and after is not None and not log.earlier_s:
            outcome.eval_joules = after - before
        # Training may have ended in an earlier process.
        outcome.peak = largest_peak(outcome.training.peak, read_peak(self.setup.machine.device))

    def look_inside(self) -> None:
        """Keep what the method shows of its inside on some evaluated images, unless the weights are random."""
        if self.setup.backbone_info().weights == "random":
            return
        evaluation = self.outcome.evaluation
        assert evaluation is not None, "the model has been evaluated"
        kept = {image.qid for image, _ in evaluation.shown} | {question.qid for question in evaluation.questions}
        examples = looked_at(self.model, self.task.pictured(self.recipe), kept)
        if examples:
            self.progress.start("looking inside", len(examples))
        begun = time.perf_counter()
        self.outcome.diagnostics = diagnose(
            self.model,
            examples,
            kept,
            self.preprocessor,
            self.recipe.eval_batch_size,
            self.work.spec_hash,
            self.setup.loading,
            self.progress.advance,
        )
        if examples:
            self.outcome.inside_s = time.perf_counter() - begun
