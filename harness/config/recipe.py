"""What a recipe is: the fields of the training settings of a run, by task.

The values that the runs of each method get are in `harness.config.recipes`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.errors import UserError

Protocol = Literal["uniform", "published"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
"""What a run asks and reads: the same for every method, or what the method's own code did."""
Scoring = Literal["letter", "generate", "likelihood"]
"""How a model answers a question with options: with one token, with a text, or by the likelihood of each option."""
MOST_EPOCHS = 1e6
"""Largest length of training, and of its warm-up."""
LONGEST_TUNING = 2_000
"""Characters that `tuning` may have."""
Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainRecipe(BaseModel):
    """Training settings of one run, whatever its task.

    The peak learning rate is `base_lr · batch_size / 256`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: float = Field(20, gt=0, le=MOST_EPOCHS, description="passes over the training split")
    warmup_epochs: float = Field(2, ge=0, le=MOST_EPOCHS, description="epochs of linear warm-up, included in `epochs`")
    batch_size: int = Field(
        32,
        ge=1,
        le=1_000_000,
        description="samples per optimiser step, however they are divided into forward passes and among devices; "
        "MemVP and LaVIN used 4 samples on each of 8 GPUs",
    )
    base_lr: float = Field(9e-3, gt=0, le=1e30, description="learning rate for 256 samples per optimiser step")
    min_lr: float = Field(0.0, ge=0, le=1e6, description="learning rate at the end of the cosine")
    weight_decay: float = Field(
        0.02, ge=0, le=1e6, description="weight decay of AdamW; biases and 1-D parameters get none"
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="betas of AdamW")
    max_grad_norm: float | None = Field(
        None, gt=0, le=1e6, description="largest gradient norm; null clips nothing, as in the published runs"
    )
    max_length: int = Field(
        512, ge=8, le=1_000_000, description="largest number of tokens per sample, including BOS and EOS"
    )
    image_statistics: Literal["imagenet", "clip"] = Field(
        "imagenet", description="statistics that images are normalised with; the published runs used imagenet"
    )
    eval_split: Literal["test", "val"] = Field(
        "test", description="split to score; val is for searching recipes, and no table shows it"
    )
    eval_batch_size: int = Field(32, ge=1, le=1_000_000, description="samples per batch in evaluation")
    gradient_checkpointing: bool = Field(False, description="recompute decoder layers in the backward pass")
    captured: bool = Field(
        False,
        description="compile each layer and replay training steps as CUDA graphs; needs a GPU, where it is the default",
    )
    protocol: Protocol = Field(
        "uniform",
        description="uniform: prompts, decoder and reading of answers are the same for every method; published: they "
        "are those of the method's own code",
    )
    tuning: str = Field(
        "the hyper-parameters of the published runs; nothing was searched",
        max_length=LONGEST_TUNING,
        description="where the values come from, and what was searched",
    )

    @model_validator(mode="after")
    def _captured_recomputes_nothing(self) -> Self:
        if self.captured and self.gradient_checkpointing:
            raise ValueError("captured excludes gradient_checkpointing; set one of them to false")
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} exceeds epochs {self.epochs:g}; give a smaller number"
            )
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate."""
        return self.base_lr * self.batch_size / 256

    @property
    def decoded_tokens(self) -> int | None:
        """The largest number of tokens that one greedy pass decodes per answer; None where answers are made otherwise.

        A letter is one token. Likelihoods of options and beams take several passes.
        """
        return None

    def with_length(self, epochs: float) -> "TrainRecipe":
        """Return the same recipe with another number of epochs, and say so in `tuning`. The warm-up keeps its share.

        Raises:
            UserError: `epochs` is not a finite number above 0.
        """
        if not 0 < epochs <= MOST_EPOCHS:  # so NaN is refused, too
            raise UserError(f"--epochs {epochs:g}: give a number above 0, and at most a million")
        if epochs == self.epochs:
            return self
        return self.model_copy(
            update={
                "epochs": epochs,
                "warmup_epochs": self.warmup_epochs * epochs / self.epochs,
                "tuning": f"the length as given on the command line; the rest: {self.tuning}",
            }
        )


def answer_is_last(prompt_format: str) -> bool:
    """Return whether the answer of a prompt format `INPUT-OUTPUT` comes after a lecture or an explanation."""
    target = prompt_format.partition("-")[2]
    return not target.startswith("A")


def _scoring_of(fields: Mapping[str, Any]) -> Scoring:
    return "generate" if answer_is_last(fields["eval_prompt_format"]) else "letter"


def _new_tokens_of(fields: Mapping[str, Any]) -> int:
    return int(fields["max_length"]) if answer_is_last(fields["eval_prompt_format"]) else 64


class ChoiceRecipe(TrainRecipe):
    """Settings of a run on questions with options: what the prompts contain, and how answers are given and read."""

    prompt_format: str = Field("QCM-A", max_length=100, description="format of the prompt in training, INPUT-OUTPUT")
    use_caption: bool = Field(False, description="append the caption of the image to the context in training")
    eval_prompt_format: str = Field(
        default_factory=lambda fields: fields["prompt_format"],
        max_length=100,
        description="format of the prompt in evaluation; by default that of training",
    )
    eval_use_caption: bool = Field(
        default_factory=lambda fields: fields["use_caption"],
        description="append the caption of the image to the context in evaluation; by default as in training",
    )
    scoring: Scoring = Field(
        default_factory=_scoring_of,
        description="letter: the likeliest token after `The answer is`; generate: a decoded text, which names the "
        "letter; likelihood: the option whose `The answer is X.` is likeliest. By default letter, and generate for "
        "formats whose answer comes last",
    )
    max_new_tokens: int = Field(
        default_factory=_new_tokens_of,
        ge=1,
        le=100_000,
        description="largest number of tokens of a decoded answer, including EOS; by default 64, and max_length for "
        "formats whose answer comes last",
    )
    sampling_seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="seed of the published sampling (temperature 0.1, top-p 0.75), in which an answer that cannot be "
        "read is replaced by a random choice; null decodes greedily and counts such an answer as wrong",
    )

    @property
    def decoded_tokens(self) -> int | None:
        """As in `TrainRecipe`."""
        return {"letter": 1, "generate": self.max_new_tokens, "likelihood": None}[self.scoring]

    @model_validator(mode="after")
    def _answers_can_be_read(self) -> Self:
        if self.scoring != "generate" and answer_is_last(self.eval_prompt_format):
            raise ValueError(
                f"scoring: {self.scoring} asks for the answer first, but {self.eval_prompt_format} gives it last; set "
                "scoring to generate, or eval_prompt_format to a format whose answer comes first"
            )
        if answer_is_last(self.prompt_format) and not answer_is_last(self.eval_prompt_format):
            raise ValueError(
                f"eval_prompt_format: {self.eval_prompt_format} asks for the answer first, but training on "
                f"{self.prompt_format} gives it last; set both to the same order"
            )
        if self.sampling_seed is not None and (self.protocol, self.scoring) != ("published", "generate"):
            raise ValueError(
                "sampling_seed: is for the published protocol of a method whose answers are generated; leave it out"
            )
        return self


class CaptionRecipe(TrainRecipe):
    """Training and decoding settings of a captioning run. The default is greedy, because the papers do not say."""

    max_new_tokens: int = Field(64, ge=1, le=100_000, description="largest number of tokens per caption, including EOS")
    beams: int = Field(1, ge=1, le=1_000, description="beam width; 1 decodes greedily")
    length_penalty: float = Field(
        1.0, ge=-10, le=10, description="exponent of the length that a beam's score is divided by"
    )

    @property
    def decoded_tokens(self) -> int | None:
        """As in `TrainRecipe`."""
        return self.max_new_tokens if self.beams == 1 else None


_RECIPE_OF_TASK: Mapping[str, type[TrainRecipe]] = {"scienceqa": ChoiceRecipe, "coco": CaptionRecipe}


def recipe_class(task: str) -> type[TrainRecipe]:
    """Return the class of a task's recipes."""
    return _RECIPE_OF_TASK.get(task, TrainRecipe)
