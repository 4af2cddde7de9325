"""The sections of a record. Import them from `harness.records`.

The docstring of a field is its description in results/schema.json and in the field guide of results/README.md.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from harness.escape import visible


class NeedsReason:
    """Marks a field that may be null only if the record's `missing` gives the reason."""


REASON = NeedsReason()


def _printable(value: Any, info: ValidationInfo) -> Any:
    """Escape control characters in what the harness found out; refuse them in a file, where they do not belong."""
    if not isinstance(value, str) or (plain := visible(value)) == value:
        return value
    if info.mode == "json":
        raise ValueError("contains control characters")
    return plain


Text = Annotated[str, BeforeValidator(_printable)]
"""Text from outside, such as the name of a folder, a processor or the message of a library."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SpecHash = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
MaybeCount = Annotated[Count | None, REASON]
MaybeSeconds = Annotated[Seconds | None, REASON]
MaybeFloat = Annotated[float | None, REASON]


def _is_none(value: object) -> bool:
    """Return whether a field is left out of the file. Without it, the hash of a run is what it was before the field."""
    return value is None


def _descriptions_on_one_line(schema: dict[str, Any]) -> None:
    for field in schema.get("properties", {}).values():
        if "description" in field:
            field["description"] = " ".join(field["description"].split())


class Section(BaseModel):
    """Base of all sections: rejects unknown fields, NaN and infinity, and cannot be changed once it is made."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_extra=_descriptions_on_one_line,
    )


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
    value: float | None
    """Accuracy in percent, or caption score x 100 (BLEU, CIDEr); null where `reason` says why."""
    n: Count
    """Number of problems or images that the value is computed from."""
    stderr: Annotated[float, Field(ge=0)] | None = None
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
    image: Annotated[str, Field(pattern=r"^samples/[A-Za-z0-9_./+-]+$")]
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
    """Median seconds of one optimiser step, warm-up steps excluded."""
    train_step_p90: MaybeSeconds = None
    """90th percentile of the seconds of one optimiser step, warm-up steps excluded."""
    train: MaybeSeconds = None
    """Seconds of the whole training loop."""
    eval: MaybeSeconds = None
    """Seconds to decode the evaluation split."""
    scoring: MaybeSeconds = None
    """Seconds to score the decoded answers."""
    validation: Seconds | None = None
    """Seconds to validate during training, which `train` leaves out; null where --eval-every did not ask for it."""
    write: Seconds | None = None
    """Seconds to write the adapter, the samples, the predictions and the history; null in records made before this was
    measured."""


class Energy(Section):
    train: Seconds | None = None
    """Energy of the GPU in training, in joules, that of other processes on it included. Null without a GPU, where its
    management library does not report energy, and in records made before this was measured."""
    eval: Seconds | None = None
    """Energy of the GPU while the evaluation split was decoded and scored; of an interrupted evaluation, the last part.
    Null as for `train`."""


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


Implementation = Literal["shipped", "plain", "yardstick"]
Clock = Literal["wall", "cpu"]


class Spread(Section):
    median: Annotated[float, Field(ge=0)]
    """Median of the ratios."""
    p10: Annotated[float, Field(ge=0)]
    """10th percentile of the ratios."""
    p90: Annotated[float, Field(ge=0)]
    """90th percentile of the ratios."""
    ci_low: Annotated[float, Field(ge=0)] | None = None
    """Lower end of a 95 % confidence interval of the median (sign test); null where there are fewer than six ratios."""
    ci_high: Annotated[float, Field(ge=0)] | None = None
    """Upper end of that interval; null where there are fewer than six ratios."""


class Timing(Section):
    median_s: Seconds
    """Median seconds per batch."""
    p10_s: Seconds
    """10th percentile of the seconds per batch."""
    p90_s: Seconds
    """90th percentile of the seconds per batch."""
    n: Count
    """Number of timed batches, warm-up excluded."""
    cpu_s: Seconds | None = None
    """Median CPU seconds of the process per batch, summed over its threads; null on a GPU, or where not reported."""
    ratio: Spread | None = None
    """Time divided by the time of Table 2's baseline in the same round, both by `speed.clock`; null where the baseline
    was not timed."""
    ratio_to_yardstick: Spread | None = None
    """Time divided by the time of the frozen backbone without a method in the same round, both by `speed.clock`; null
    where not reported."""
    tokens_per_s: Seconds | None = None
    """Text tokens per second at the median, decoded tokens included; null where not reported."""
    images_per_s: Seconds | None = None
    """Images per second at the median; null where not reported."""
    peak_memory_bytes: Count | None = None
    """Peak memory of a step in bytes, including the weights of the other models that are timed in the same run. A step
    that replays a graph is measured with its capture. On a GPU it is the memory that torch allocated, else the resident
    memory of the process. Null where not reported."""
    peak_reserved_bytes: Count | None = None
    """Peak memory of a step that torch reserved on the GPU, in bytes; null without a GPU."""
    layer_s: float | None = None
    """Estimated seconds of one more decoder layer, where the backbone is a slice of a larger one; null otherwise."""
    whole_s: float | None = None
    """Estimated seconds per batch on the larger backbone, where the backbone is a slice of one; null otherwise."""
    joules: Seconds | None = None
    """Median energy of the GPU per batch, in joules. The GPU's counter is updated about ten times per second, so the
    value is rough where a batch takes less than a second. Null without a GPU, or where its management library does not
    report energy."""
    utilisation: Seconds | None = None
    """Counted FLOPs per second divided by `speed.matmul_flops_per_s`, from 0 to 1; null without a GPU, or where the
    method does not count its FLOPs."""


class SpeedSetting(Section):
    """What was timed. Only times with equal settings can be compared."""

    text_length: Count
    """Text tokens per sample, BOS included."""
    labels: Count
    """Labelled tokens per training sample."""
    new_tokens: Count
    """Decoded tokens per sample."""
    train_batch: Count
    """Samples per training step, which is one forward pass."""
    eval_batch: Count
    """Samples per inference batch."""
    compiled: bool
    """Whether each layer was compiled with `torch.compile`; on a GPU the forward and backward pass of training are then
    also replayed as a CUDA graph, as in a run with `recipe.captured`."""


class Speed(Section):
    phases: dict[Literal["train", "inference"], Timing]
    """Times per batch of each phase. Training is an optimiser step of a run: copying the batch to the device, forward
    pass, backward pass, reading the loss, and update. Inference is encoding the images, prefill of the prompts, and
    decoding."""
    loaded: bool
    """Whether the machine was busy with other work; such a record enters no table."""
    implementation: Implementation = "shipped"
    """What was timed: `shipped` is the method as it is run; `plain` is the method by its printed formulas, without the
    rearrangements that save work; `yardstick` is the frozen backbone without a method."""
    setting: SpeedSetting | None = None
    """Sizes of what was timed; null where not reported."""
    clock: Clock = "wall"
    """Which times the ratios divide: `cpu` is the CPU time of the process, on a CPU with one thread; `wall` is
    wall-clock time."""
    processes: Count = 1
    """Number of processes, one after another, whose rounds are pooled."""
    cpu_s_per_s: Seconds | None = None
    """CPU seconds that the process got per second timed; well below `environment.threads` on a busy machine. Null where
    not reported."""
    load_average: Seconds | None = None
    """Average number of runnable processes in the minute before timing; null where the platform does not report it."""
    cpu_mhz: Seconds | None = None
    """CPU clock after timing, in MHz; null where the platform does not report it."""
    gpu_mhz: Seconds | None = None
    """Clock of the GPU's multiprocessors after timing, in MHz; null without a GPU, or where its management library does
    not report it."""
    matmul_flops_per_s: Seconds | None = None
    """Measured peak throughput in FLOPs per second: an 8192^3 matrix product of random bfloat16 data in the same run;
    null without a GPU."""


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
    """Number of processes that made the run together, each on a device of its own. Times and memory are those of the
    first one. Null where not reported."""
    threads: MaybeCount = None
    """Number of compute threads of torch. On a CPU the last bits of a result can depend on it."""
    deterministic: bool | None = None
    """Whether torch computed with deterministic algorithms only (--deterministic); null where not reported."""


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


def unexplained(section: BaseModel, prefix: str = "") -> Iterator[str]:
    """Yield the paths of the fields of `section`, and of the sections in it, that are null and need a reason.

    `prefix` is put in front of each path.
    """
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is None and REASON in field.metadata:
            yield prefix + name
        elif isinstance(value, BaseModel):
            yield from unexplained(value, f"{prefix}{name}.")
