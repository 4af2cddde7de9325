"""The parts of a record. Imported through `harness.records`; a record is read and written there."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class NeedsReason:
    """Marks a field that may be null only if `missing` says why."""


REASON = NeedsReason()
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
MaybeCount = Annotated[Count | None, REASON]
MaybeSeconds = Annotated[Seconds | None, REASON]
MaybeFloat = Annotated[float | None, REASON]


class Section(BaseModel):
    """Unknown fields, NaN and infinity are refused; a record does not change once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Data(Section):
    name: Name
    """Which set, e.g. `scienceqa` or `mini`; never a path."""
    data_hash: Sha256
    """SHA-256 over `files` (names and hashes)."""
    files: dict[str, Sha256]
    """File of the set -> SHA-256; `images` is one over the names and contents of all images used."""
    split_sizes: dict[str, Count]
    """Records per split as loaded: `train`, `val`, `test`."""
    limit: Count | None = None
    """Records kept per split by --limit; null: all."""
    skipped_images: Count = 0
    """Unreadable images left out by --skip-bad-images."""
    prompt_format: str | None = None
    """E.g. `QCM-A`; null: the task has one prompt only."""


class BackboneInfo(Section):
    llm: str
    """Model id of the language model."""
    clip: str
    """open_clip name and weights tag of the vision encoder."""
    weights: Literal["pretrained", "random", "shipped"]
    """`random` backbones measure cost only: their records hold no accuracy."""
    weight_hash: Annotated[Sha256 | None, REASON] = None
    """SHA-256 of the frozen weights."""
    hidden_size: Count
    """LLM width h."""
    num_layers: Count
    """LLM blocks N_l."""
    vision_layers: Count
    """CLIP blocks N_v."""
    dtype: str
    """Dtype of the frozen weights, e.g. `bfloat16`."""


class Metric(Section):
    value: float | None
    """Percent (accuracies) or score x 100 (BLEU, CIDEr); null with a reason."""
    n: Count
    """Problems or captions counted."""
    stderr: Annotated[float, Field(ge=0)] | None = None
    """Standard error of `value`, in the same unit."""
    reason: str | None = None
    """Why `value` or `stderr` is null."""

    @model_validator(mode="after")
    def _explain(self) -> Self:
        if (self.value is None or self.stderr is None) and not self.reason:
            raise ValueError("`value` or `stderr` is null and `reason` does not say why")
        return self


class ParseFailures(Section):
    count: Count
    """Answers in which no choice could be read (they count as wrong)."""
    n: Count
    """Answers given."""


class Truncated(Section):
    train: MaybeCount = None
    """Training examples seen that are longer than the recipe's `max_length`; each lost the end of its answer."""
    eval: MaybeCount = None
    """Prompts of the evaluation split that are longer; each lost its beginning."""


class Sample(Section):
    image_id: str
    """Id in the data set."""
    image: Annotated[str, Field(pattern=r"^samples/[A-Za-z0-9_./+-]+$")]
    """Copy of the image, at most 320 pixels a side; path inside the results folder."""
    caption: str
    """What the model says."""
    references: list[str]
    """What people say."""


class ModuleCount(Section):
    count: Count
    """Parameters in the module."""
    status: Literal["trained", "counted by the reference, unused"]
    """Whether they receive gradients, or only stand in the published count."""


class Parameters(Section):
    trainable: Count
    """Parameters that are trained here."""
    paper_convention: Count
    """As the published code counts: with parameters that never get a gradient."""
    total: Count
    """Backbone and adapter together."""
    by_module: dict[str, ModuleCount]
    """The count taken apart."""


class Times(Section):
    load: MaybeSeconds = None
    """Backbone and weights."""
    data: MaybeSeconds = None
    """Reading, checking and tokenising the set."""
    train_step_median: MaybeSeconds = None
    """One optimiser step, warm-up excluded."""
    train_step_p90: MaybeSeconds = None
    """Ninth decile of the same."""
    train: MaybeSeconds = None
    """The whole training loop."""
    eval: MaybeSeconds = None
    """Decoding the evaluation split."""
    scoring: MaybeSeconds = None
    """Parsing and scoring the decoded answers."""


class Loss(Section):
    first: MaybeFloat = None
    """Training loss of the first step."""
    last: MaybeFloat = None
    """Training loss of the last finite step."""


class PeakMemory(Section):
    rss: MaybeCount = None
    """Peak resident set of the process."""
    cuda_allocated: MaybeCount = None
    """Peak allocated by torch on the GPU."""
    cuda_reserved: MaybeCount = None
    """Peak reserved by torch on the GPU."""


Implementation = Literal["shipped", "plain", "yardstick"]


class Spread(Section):
    median: Annotated[float, Field(ge=0)]
    """Median."""
    p10: Annotated[float, Field(ge=0)]
    """First decile."""
    p90: Annotated[float, Field(ge=0)]
    """Ninth decile."""
    ci_low: Annotated[float, Field(ge=0)] | None = None
    """Lower end of a 95 % confidence interval of the median, from order statistics; null: fewer than six values."""
    ci_high: Annotated[float, Field(ge=0)] | None = None
    """Upper end of the same."""


class Timing(Section):
    median_s: Seconds
    """Seconds a batch."""
    p10_s: Seconds
    """First decile."""
    p90_s: Seconds
    """Ninth decile."""
    n: Count
    """Batches timed, warm-up excluded."""
    ratio: Spread | None = None
    """Time over that of Table 2's baseline in the same round; null: the baseline did not run beside it."""
    ratio_to_yardstick: Spread | None = None
    """Time over that of the bare frozen towers in the same round; null: not told."""
    tokens_per_s: Seconds | None = None
    """Text tokens a second at the median, decoded ones included; null: not told."""
    images_per_s: Seconds | None = None
    """Images a second at the median; null: not told."""
    peak_memory_bytes: Count | None = None
    """Peak of a step, beside the other models' weights: allocated by torch on a GPU, else resident; null: not told."""
    peak_reserved_bytes: Count | None = None
    """The same as reserved by torch; null: no GPU."""
    layer_s: float | None = None
    """Estimate, where the backbone is some layers of another: seconds of one more decoder layer. Null: it is whole."""
    whole_s: float | None = None
    """Estimate, where the backbone is some layers of another: seconds a batch of that other. Null: it is whole."""
    joules: Seconds | None = None
    """Energy of the GPU a batch, median, from a counter that moves some ten times a second: rough where a batch takes
    less than a second. Null: no GPU, or its management library does not tell."""
    utilisation: Seconds | None = None
    """Counted FLOPs a second over `Speed.matmul_flops_per_s`; null: no GPU, or the method does not count them."""


class SpeedSetting(Section):
    """What was timed; only equal settings can be compared."""

    text_length: Count
    """Text tokens of a sample, BOS included."""
    labels: Count
    """Labelled tokens of a training sample."""
    new_tokens: Count
    """Decoded tokens of a sample."""
    train_batch: Count
    """Samples of a training step."""
    eval_batch: Count
    """Samples of an inference batch."""
    compiled: bool
    """Whether `torch.compile` was used, layer by layer; on a GPU the training step is then one CUDA graph."""


class Speed(Section):
    phases: dict[Literal["train", "inference"], Timing]
    """Seconds a batch by phase: training is forward, backward, optimiser; inference is images, prompt, tokens."""
    loaded: bool
    """True: the machine was doing other work; such a record enters no table."""
    implementation: Implementation = "shipped"
    """The method as it is run, the plain reading of its formulas, or the yardstick: frozen towers without a method."""
    setting: SpeedSetting | None = None
    """What was timed; null: not told."""
    cpu_s_per_s: Seconds | None = None
    """CPU seconds the process got for each second timed; well under `environment.threads` on a loaded machine."""
    load_average: Seconds | None = None
    """Runnable processes of the machine in the minute before timing; null: the platform does not tell."""
    cpu_mhz: Seconds | None = None
    """CPU clock after timing; null: the platform does not tell."""
    gpu_mhz: Seconds | None = None
    """Clock of the GPU's multiprocessors after timing; null: no GPU, or its management library does not tell."""
    matmul_flops_per_s: Seconds | None = None
    """Measured peak: an 8192^3 matrix product of random bfloat16 data in the same run; null: no GPU."""


class Environment(Section):
    python: str
    """Python version."""
    versions: dict[str, str | None]
    """Package -> version, the method's own package among them where it comes from outside; null: not installed."""
    platform: str
    """Operating system and machine type."""
    cpu: Annotated[str | None, REASON] = None
    """CPU model."""
    cores: Count
    """CPU cores the process may use."""
    gpu: str | None = None
    """GPU model; null: none used."""
    threads: MaybeCount = None
    """Compute threads of the run."""


class Git(Section):
    commit: str | None = None
    """Commit of the code that ran."""
    dirty: bool | None = None
    """True: that code had uncommitted changes."""
    reason: str | None = None
    """Why `commit` is null."""

    @model_validator(mode="after")
    def _explain(self) -> Self:
        if (self.commit is None or self.dirty is None) and not self.reason:
            raise ValueError("`commit` or `dirty` is null and `reason` does not say why")
        return self


def unexplained(section: BaseModel, prefix: str = "") -> Iterator[str]:
    """Paths of the fields that are null and need a reason for it, in the order of the model."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is None and REASON in field.metadata:
            yield prefix + name
        elif isinstance(value, BaseModel):
            yield from unexplained(value, f"{prefix}{name}.")
