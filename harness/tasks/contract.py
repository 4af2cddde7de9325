"""The interface of a task: it provides training examples, and it evaluates a tuned model on its data."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from harness.config.recipe import TrainRecipe
from harness.data.coco import CaptionImage
from harness.data.collate import Example
from harness.data.dataset import DataSet
from harness.data.imagefile import HasImage
from harness.data.images import ImagePreprocessor
from harness.data.loading import Loading
from harness.data.problem import Problem
from harness.data.prompts import Tokenizer
from harness.errors import UserError
from harness.evaluation.answer_log import AnswerLog
from harness.evaluation.model import EvaluatedModel
from harness.records import Data, Metric, ParseFailures
from harness.tasks.facts import task_facts

SampleT = TypeVar("SampleT", bound=HasImage)
OnProgress = Callable[[int], None]
"""Called during an evaluation with the number of samples done so far."""


@dataclass(frozen=True)
class DataOptions:
    """Which data a run reads.

    Attributes:
        root: the data folder; None for the generated small world, which is built on first use.
        limit: number of records to keep per split; None keeps all.
        skip_bad_images: leave out records whose image cannot be read instead of stopping.
        full: require that the folder contains the full benchmark.
        say: called with a line about earlier checks of the images that cannot be used.
    """

    root: Path | None = None
    limit: int | None = None
    skip_bad_images: bool = False
    full: bool = False
    say: Callable[[str], None] = lambda line: None

    @contextmanager
    def reading(self, root: Path) -> Iterator[None]:
        """Say of every error in generated data how it is repaired. Such data is in a cache, which may be damaged.

        Args:
            root: the folder that is read.
        """
        try:
            yield
        except UserError as error:
            if self.root is not None:
                raise
            raise UserError(f"{error}; the data is generated: remove {root}, and it is built again") from error


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one evaluation.

    Attributes:
        metrics: column -> metric.
        failures: how many answers could not be read; None for tasks without such answers.
        truncated: number of prompts that were cut to the recipe's `max_length`.
        rows: the predictions, one JSON object per sample.
        shown: images with the caption that the model gave, to be kept with the record; empty for tasks without
            captions. See `harness.tasks.samples`.
        questions: questions to be kept beside the records; empty for tasks without questions.
        eval_s: seconds spent on decoding, those of an interrupted evaluation included.
        scoring_s: seconds spent on scoring.
    """

    metrics: dict[str, Metric]
    failures: ParseFailures | None
    truncated: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    shown: Sequence[tuple[CaptionImage, str]] = ()
    questions: Sequence[Problem] = ()
    eval_s: float = 0.0
    scoring_s: float = 0.0


class ScoringFailedError(Exception):
    """Answers are there, but they could not be scored; the cause says why.

    Attributes:
        answered: the evaluation without metrics.
    """

    def __init__(self, answered: Evaluation) -> None:
        super().__init__("the answers could not be scored")
        self.answered = answered


@contextmanager
def keeping(answered: Evaluation) -> Iterator[None]:
    """Keep the answers if the body, which scores them, fails.

    Args:
        answered: the evaluation without metrics.

    Raises:
        ScoringFailedError: the body failed.
    """
    try:
        yield
    except Exception as error:
        raise ScoringFailedError(answered) from error


@dataclass(frozen=True)
class Decoding:
    """What a model is to continue, token by token.

    Attributes:
        prompts: the prompts of the evaluation split.
        new_tokens: the largest number of tokens that are read behind a prompt.
        is_text: whether they are a text, of up to `max_new_tokens` of the recipe; otherwise no setting changes them.
    """

    prompts: Sequence[Example]
    new_tokens: int
    is_text: bool = True


class Task(Protocol):
    """One task on one data folder.

    Every `recipe` argument is of the task's own recipe class, see `harness.config.recipe.recipe_class`. The oracle is
    the frozen language model that reads a description of each image in words instead of the image.
    """

    name: str

    def data(self, recipe: TrainRecipe) -> Data:
        """Return the `data` section of the record of a run with `recipe`."""
        ...

    def train_examples(self, recipe: TrainRecipe) -> list[Example]:
        """Return the training examples with their answers, in the order of the split."""
        ...

    def evaluation_size(self, recipe: TrainRecipe) -> int:
        """Return the number of samples in the evaluation split."""
        ...

    def pictured(self, recipe: TrainRecipe) -> list[Example]:
        """Return the samples of the evaluation split that have an image, without their answers."""
        ...

    def require_answerable(self, recipe: TrainRecipe, tokenizer: Tokenizer) -> None:
        """Check that what a model with this tokenizer will answer can be read as the recipe says.

        Raises:
            UserError: it cannot; the message names the option to change.
        """
        ...

    def decoding(self, recipe: TrainRecipe, *, described: bool = False) -> Decoding:
        """Return what a model will continue in an evaluation.

        Args:
            recipe: the run's recipe.
            described: whether each image is replaced by its description in words, as for the oracle.

        Raises:
            UserError: a prompt cannot be made; with `described`, also as `require_oracle`.
        """
        ...

    def require_oracle(self, recipe: TrainRecipe) -> None:
        """Check that the oracle can be evaluated: the data must describe every evaluated image in words.

        Raises:
            UserError: a description is missing, or the task has no oracle.
        """
        ...

    def descriptions_hash(self) -> str | None:
        """Return a hash of what the oracle reads in place of images; None where it is generated, or there is nothing.

        Raises:
            UserError: the descriptions cannot be read.
        """
        ...

    def evaluate(
        self,
        model: EvaluatedModel,
        recipe: TrainRecipe,
        preprocessor: ImagePreprocessor,
        on_progress: OnProgress,
        log: AnswerLog | None = None,
        loading: Loading | None = None,
    ) -> Evaluation:
        """Decode and score the evaluation split.

        Args:
            model: the tuned model.
            recipe: the run's recipe: split, batch size, prompt length and how to decode.
            preprocessor: image size and normalisation.
            on_progress: called with the number of samples done.
            log: answers of an interrupted evaluation, which are not computed again; None keeps nothing.
            loading: how batches are prepared, which changes no answer; None uses no workers.

        Raises:
            EvaluationFailedError: the model's logits are NaN or infinite.
            ScoringFailedError: the answers are there, but could not be scored.
            UserError: an image cannot be read.
        """
        ...

    def require_validation(self, recipe: TrainRecipe) -> None:
        """Check that a run can be validated during training.

        Raises:
            UserError: the validation split is empty, a prompt of it cannot be made, or the task has no right answers.
        """
        ...

    def validate(
        self, model: EvaluatedModel, recipe: TrainRecipe, preprocessor: ImagePreprocessor, most: int
    ) -> tuple[float, int]:
        """Answer a sample of the validation split, which is the same in every run.

        Args:
            model, recipe, preprocessor: as in `evaluate`.
            most: largest size of the sample.

        Returns:
            The accuracy in percent, and the size of the sample.

        Raises:
            EvaluationFailedError: the model's logits are NaN or infinite.
            UserError: an image cannot be read; also as `require_validation`.
        """
        ...

    def evaluate_oracle(
        self,
        model: EvaluatedModel,
        recipe: TrainRecipe,
        preprocessor: ImagePreprocessor,
        on_progress: OnProgress,
        log: AnswerLog | None = None,
        loading: Loading | None = None,
    ) -> Evaluation:
        """Decode and score the evaluation split like `evaluate`, with each image replaced by its description in words.

        Args:
            model, recipe, preprocessor, on_progress, log, loading: as in `evaluate`.

        Raises:
            EvaluationFailedError, ScoringFailedError: as `evaluate`.
            UserError: as `evaluate` and `require_oracle`.
        """
        ...


def data_section(data: DataSet[SampleT], options: DataOptions, prompt_format: str | None = None) -> Data:
    """Return the `data` section of a record: which set was read, and how much of it.

    Args:
        data: the set, its images checked.
        options: how it was read.
        prompt_format: the recipe's prompt format in training; None where the task has one prompt only.
    """
    return Data(
        name=data.name,
        data_hash=data.data_hash,
        files=dict(data.sha256),
        split_sizes=data.used_sizes,
        limit=options.limit,
        skipped_images=len(data.skipped),
        prompt_format=prompt_format,
    )


def load_task(name: str, options: DataOptions) -> Task:
    """Read and check the data of a task, and return the task.

    Args:
        name: name of the task, a key of `harness.tasks.facts.TASKS`.
        options: which data to read.

    Raises:
        UserError: there is no such task, or its data has an error.
    """
    module, _, attribute = task_facts(name).implementation.partition(":")
    task: Task = getattr(importlib.import_module(module), attribute)(options)
    return task
