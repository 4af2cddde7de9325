"""The sections of a record, except those of `speed`. Import them from `harness.records`.

The docstring of a field is its description in results/schema.json and in the field guide of results/README.md.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.records.fields import (
    REASON,
    Count,
    KeptImage,
    MaybeCount,
    MaybeFloat,
    MaybeSeconds,
    Name,
    Seconds,
    Section,
    Sha256,
    Text,
)


def _is_none(value: object) -> bool:
    """Return whether a field is left out of the file. Without it, the hash of a run is what it was before the field."""
    return value is None


def _is_empty(value: object) -> bool:
    """Return whether a list is left out of the file, in which older versions do not know it."""
    return value == []


class Data(Section):
    name: Name
    """Name of the data set, such as `scienceqa` or `mini`; never a path."""
    data_hash: Sha256
    """SHA-256 over the names and hashes in `files`."""
    files: dict[Text, Sha256]
    """SHA-256 of each file of the set; the entry `images` covers the names and contents of all images used."""
    split_sizes: dict[Text, Count]
    """Number of samples that were loaded from each split: `train`, `val`, `test`."""
    limit: Count | None = None
    """Number of samples that --limit kept per split; null where there was no limit."""
    skipped_images: Count = 0
    """Number of samples that --skip-bad-images left out because their image could not be read."""
    prompt_format: Text | None = None
    """Format of the prompt in training, such as `QCM-A`; null where the task has only one prompt. `config.train` has
    that of evaluation."""


class BackboneInfo(Section):
    llm: Text
    """Model id of the language model."""
    clip: Text
    """Name and weights tag of the vision tower in open_clip."""
    weights: Literal["pretrained", "random", "shipped"]
    """Where the weights come from. `random` weights are for measuring cost only: such a record has no scores."""
    weight_hash: Annotated[Sha256 | None, REASON] = None
    """SHA-256 of the frozen weights."""
    settings_hash: Annotated[Sha256 | None, Field(exclude_if=_is_none)] = None
    """SHA-256 of what the models compute with beside their weights: settings of their layers, and the tokenizer. Absent
    where the weights are random or come with a package."""
    hidden_size: Count
    """Width of the language model, h in the paper."""
    num_layers: Count
    """Number of decoder layers of the language model, N_l in the paper."""
    vision_layers: Count
    """Number of blocks of the vision tower, N_v in the paper."""
    dtype: Text
    """Dtype of the frozen weights, such as `bfloat16`; that of all but the linear layers in a quantised model."""
    quantize: Annotated[Literal["8bit", "4bit"] | None, Field(exclude_if=_is_none)] = None
    """How bitsandbytes quantised the linear layers of the language model (--quantize): `8bit` is LLM.int8, `4bit` is
    NF4. Absent where they are not quantised. The `model` of such a record ends in it, so it is a model of its own."""


class Metric(Section):
    value: Annotated[float, Field(ge=-1e9, le=1e9)] | None
    """Accuracy in percent, or caption score x 100 (BLEU, CIDEr); null where `reason` says why."""
    n: Count
    """Number of problems or images that the value is computed from."""
    stderr: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Standard error of `value`, in the same unit; null where `reason` says why."""
    reason: Text | None = None
    """Why `value` or `stderr` is null."""

    @model_validator(mode="after")
    def _explain(self) -> Self:
        if (self.value is None or self.stderr is None) and not self.reason:
            raise ValueError("`value` or `stderr` is null, so `reason` must say why")
        return self


class ParseFailures(Section):
    count: Count
    """Number of answers from which no choice could be read. They count as wrong, or with `config.train.sampling_seed`
    were replaced by a random choice."""
    n: Count
    """Number of answers."""


class Truncated(Section):
    train: MaybeCount = None
    """Number of training examples longer than the recipe's `max_length`; the end of their answer was cut off."""
    eval: MaybeCount = None
    """Number of evaluation prompts longer than the recipe's `max_length`; their beginning was cut off."""


class Sample(Section):
    image_id: str
    """Id of the image in the data set."""
    image: KeptImage
    """Path, inside the results folder, of a copy of the image; no side is longer than 320 pixels."""
    caption: str
    """Caption that the model gave."""
    references: list[str]
    """Captions in the data set, written by people (or by the generator of a procedural set)."""


class ModuleCount(Section):
    count: Count
    """Number of parameters in the module."""
    status: Literal["trained", "counted by the reference, unused"]
    """Whether the parameters are trained, or are counted by the published code without being used."""


class Parameters(Section):
    trainable: Count
    """Number of parameters that are trained."""
    paper_convention: Count
    """Number of trainable parameters as the published code counts them, including those that it never uses."""
    total: Count
    """Number of parameters of the backbone and the method together."""
    by_module: dict[Text, ModuleCount]
    """`paper_convention` broken down by module."""


class Times(Section):
    load: MaybeSeconds = None
    """Seconds to load the backbone and attach the method."""
    data: MaybeSeconds = None
    """Seconds to read and check the data set; the same for all runs of one command."""
    train_step_median: MaybeSeconds = None
    """Median seconds of one optimiser step, warm-up steps and the wait for its batch excluded."""
    train_step_p90: MaybeSeconds = None
    """90th percentile of the seconds of one optimiser step, warm-up steps and the wait for its batch excluded."""
    train: MaybeSeconds = None
    """Seconds of the whole training loop."""
    eval: MaybeSeconds = None
    """Seconds to decode the evaluation split, those before an interruption included."""
    scoring: MaybeSeconds = None
    """Seconds to score the decoded answers."""
    validation: Seconds | None = None
    """Seconds to validate during training, which `train` leaves out; null where --eval-every did not ask for it."""
    inside: Seconds | None = None
    """Seconds to look at what the method does inside; null where it shows nothing, and in records made before this was
    measured."""
    write: Seconds | None = None
    """Seconds to write the adapter, the samples, the predictions and the history; null in records made before this was
    measured."""


class Energy(Section):
    train: Seconds | None = None
    """Energy of the GPU in training, in joules, that of other programs on it included. Null without a GPU, where its
    management library does not report energy, where several processes trained, and in records made before this was
    measured."""
    eval: Seconds | None = None
    """Energy of the GPU while the evaluation split was decoded and scored. Null as for `train`, and where the
    evaluation was interrupted."""


class Loss(Section):
    first: MaybeFloat = None
    """Training loss of the first optimiser step."""
    last: MaybeFloat = None
    """Training loss of the last optimiser step whose loss was finite."""


class PeakMemory(Section):
    rss: MaybeCount = None
    """Peak resident memory of the process, in bytes."""
    cuda_allocated: MaybeCount = None
    """Peak memory that torch allocated on the GPU, in bytes."""
    cuda_reserved: MaybeCount = None
    """Peak memory that torch reserved on the GPU, in bytes."""


class Maker(Section):
    """The code and the machine that a part of a run was made with."""

    commit: Text | None = None
    """Commit of the code, with `-dirty` behind it where it had uncommitted changes; null where it is not known."""
    torch: Text | None = None
    """Version of torch."""
    cpu: Text | None = None
    """Model of the CPU; null where not reported."""
    gpu: Text | None = None
    """Model of the GPU; null where none was used."""


class Earlier(Maker):
    """The code and the machine of the training before an interruption."""

    steps: Count
    """Number of optimiser steps that had been made when these ended."""


class Environment(Section):
    python: Text
    """Python version."""
    versions: dict[Text, Text | None]
    """Version of each package, including the one that a method outside this project comes from; null where the package
    is not installed."""
    platform: Text
    """Operating system and machine type."""
    cpu: Annotated[Text | None, REASON] = None
    """Model of the CPU."""
    cores: Count
    """Number of CPU cores that the process may use."""
    gpu: Text | None = None
    """Model of the GPU; null where none was used."""
    processes: Count | None = None
    """Number of processes that made the run together, each on a device of its own; those that trained, where others
    went on after an interruption. Times and memory are those of the first one. Null where not reported."""
    sharded: bool | None = None
    """Whether these processes divided the frozen decoder layers among them by FSDP, so that none held them all; null
    where not reported."""
    threads: MaybeCount = None
    """Number of compute threads of torch. On a CPU the last bits of a result can depend on it."""
    deterministic: bool | None = None
    """Whether torch computed with deterministic algorithms only (--deterministic); null where not reported."""
    earlier: Annotated[list[Earlier], Field(default_factory=list, exclude_if=_is_empty)]
    """What was made before an interruption with other code or on another machine than the rest; in order. All other
    fields of this section, and `git`, describe the process that ended the run."""


class Git(Section):
    commit: Text | None = None
    """Commit of the code that ran."""
    dirty: bool | None = None
    """Whether that code had uncommitted changes."""
    reason: Text | None = None
    """Why `commit` or `dirty` is null."""

    @model_validator(mode="after")
    def _explain(self) -> Self:
        if (self.commit is None or self.dirty is None) and not self.reason:
            raise ValueError("`commit` or `dirty` is null, so `reason` must say why")
        return self
