"""From the timed steps of one phase to the `Timing` of a record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from harness.backbone.language_model import llm_config
from harness.cost.depth import estimate, whole_layers
from harness.cost.flops import Phase
from harness.cost.plan import TABLE, SpeedPlan
from harness.cost.stopwatch import Sample, paired_ratio, spread
from harness.cost.yardstick import Yardstick
from harness.records import METERED_S, Clock, Implementation, PeakMemory, Spread, Timing, default_label
from harness.report.paper import layout


class Key(NamedTuple):
    """Identifies a contestant by the registry name of its method (or the yardstick's name) and its implementation."""

    method: str
    implementation: Implementation

    @property
    def label(self) -> str:
        """The name of the contestant in goals and tables: the method, METHOD-plain, or the yardstick."""
        return default_label(self.method, "plain" if self.implementation == "plain" else None)


BASELINE = Key(layout(TABLE).baseline or "", "shipped")
"""The method that Table 2 compares all methods with."""
YARDSTICK = Key(Yardstick.name, "yardstick")
"""The frozen backbone without a method."""


@dataclass(frozen=True)
class PhaseResult:
    """The measurements of one contestant in one phase.

    Attributes:
        samples: one timed step per round.
        doubled: one timed step per round of the model in which every decoder layer runs twice; None where the backbone
            is whole.
        peak: peak memory of one step.
    """

    samples: Sequence[Sample]
    doubled: Sequence[Sample] | None
    peak: PeakMemory


@dataclass(frozen=True)
class PhaseResults:
    """The measurements of all contestants in one phase. The n-th samples of all of them come from the same round."""

    phase: Phase
    by_key: Mapping[Key, PhaseResult]

    @property
    def samples(self) -> list[Sample]:
        """All timed steps, including those of the models with doubled layers."""
        return [s for result in self.by_key.values() for s in (*result.samples, *(result.doubled or ()))]

    def ratio(self, key: Key, base: Key, clock: Clock) -> Spread:
        """Return the time of one contestant divided by that of another, round by round."""
        return paired_ratio(self.by_key[key].samples, self.by_key[base].samples, clock)

    def timing(self, key: Key, plan: SpeedPlan, clock: Clock, seconds_at_peak: float | None = None) -> Timing:
        """Return the `Timing` of one contestant.

        Args:
            key: the contestant.
            plan: the options of the measurement.
            clock: which times the ratios divide.
            seconds_at_peak: the time that the counted FLOPs of a batch would take at the measured peak rate of matrix
                products; None where the FLOPs are not counted or the peak is not measured.
        """
        result, work = self.by_key[key], plan.work
        on_gpu = plan.machine.device.type == "cuda"
        seconds = spread([sample.seconds for sample in result.samples])
        batch = work.train_batch if self.phase == "train" else work.eval_batch
        # The prefill gives the first new token. Decoding each further token passes one more token through the model.
        tokens = batch * (work.text_length + (work.new_tokens - 1 if self.phase == "inference" else 0))
        joules = [sample.joules for sample in result.samples if sample.joules is not None]
        whole = whole_layers(plan.spec)
        estimated = None
        if whole is not None and result.doubled is not None:
            estimated = estimate(result.samples, result.doubled, llm_config(plan.spec).num_hidden_layers, whole)
        return Timing(
            median_s=seconds.median,
            p10_s=seconds.p10,
            p90_s=seconds.p90,
            n=len(result.samples),
            cpu_s=None if on_gpu else median(sample.cpu_s for sample in result.samples),
            ratio=self.ratio(key, BASELINE, clock) if BASELINE in self.by_key else None,
            ratio_to_yardstick=self.ratio(key, YARDSTICK, clock),
            tokens_per_s=tokens / seconds.median,
            images_per_s=batch / seconds.median,
            peak_memory_bytes=result.peak.cuda_allocated or result.peak.rss,
            peak_reserved_bytes=result.peak.cuda_reserved,
            layer_s=estimated.layer_s if estimated else None,
            whole_s=estimated.whole_s if estimated else None,
            joules=median(joules) if joules and seconds.median >= METERED_S else None,
            utilisation=None if seconds_at_peak is None else seconds_at_peak / seconds.median,
        )


def pool(parts: Sequence[PhaseResults]) -> PhaseResults:
    """Put together the rounds of several processes that timed the same phase.

    Args:
        parts: the results of each process, in the order of their rounds.

    Returns:
        The samples of all rounds; the peak memory is that of the process that needed most.
    """
    return PhaseResults(parts[0].phase, {key: _pool([part.by_key[key] for part in parts]) for key in parts[0].by_key})


def _pool(parts: Sequence[PhaseResult]) -> PhaseResult:
    doubled = [part.doubled for part in parts if part.doubled is not None]
    return PhaseResult(
        samples=[sample for part in parts for sample in part.samples],
        doubled=[sample for samples in doubled for sample in samples] if doubled else None,
        peak=max((part.peak for part in parts), key=lambda peak: peak.cuda_allocated or peak.rss or 0),
    )
