"""The sections of a record of `speed`: what was timed, and how long it took. Import them from `harness.records`.

The docstring of a field is its description in results/schema.json and in the field guide of results/README.md.
"""

from typing import Literal

from harness.records.fields import Count, Number, Seconds, Section

Implementation = Literal["shipped", "plain", "yardstick"]
Clock = Literal["wall", "cpu"]
METERED_S = 1.0
"""Seconds that a batch must take for its energy to be measured: the GPU's counter is updated ten times per second."""


class Spread(Section):
    median: Seconds
    """Median of the ratios."""
    p10: Seconds
    """10th percentile of the ratios."""
    p90: Seconds
    """90th percentile of the ratios."""
    ci_low: Seconds | None = None
    """Lower end of a 95 % confidence interval of the median (sign test); null where there are fewer than six ratios."""
    ci_high: Seconds | None = None
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
    layer_s: Number | None = None
    """Estimated seconds of one more decoder layer, where the backbone is a slice of a larger one; null otherwise."""
    whole_s: Number | None = None
    """Estimated seconds per batch on the larger backbone, where the backbone is a slice of one; null otherwise."""
    joules: Seconds | None = None
    """Median energy of the GPU per batch, in joules. Null without a GPU, where its management library does not report
    energy, and where a batch takes less than a second, because the GPU's counter is updated about ten times per second.
    Records of earlier versions have a value there, which says nothing, and no table shows it."""
    utilisation: Seconds | None = None
    """Counted FLOPs per second divided by `speed.matmul_flops_per_s`, from 0 to 1; null without a GPU, or where the
    method does not count its FLOPs."""

    @property
    def energy(self) -> float | None:
        """Return the energy per batch in joules, where it could be measured."""
        return self.joules if self.median_s >= METERED_S else None


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
    also replayed as a CUDA graph, as in a run with `config.train.captured`."""


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
