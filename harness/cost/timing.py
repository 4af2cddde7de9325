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
from harness.records import Implementation, PeakMemory, Timing
from harness.report.paper import layout


class Key(NamedTuple):
    """Identifies a contestant by the registry name of its method (or the yardstick's name) and its implementation."""

    method: str
    implementation: Implementation


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
    def baseline(self) -> PhaseResult | None:
        """The method that Table 2 compares all methods with; None where it was not timed."""
        return self.by_key.get(Key(layout(TABLE).baseline or "", "shipped"))

    @property
    def yardstick(self) -> PhaseResult:
        """The frozen backbone without a method."""
        return self.by_key[Key(Yardstick.name, "yardstick")]

    @property
    def samples(self) -> list[Sample]:
        """All timed steps, including those of the models with doubled layers."""
        return [s for result in self.by_key.values() for s in (*result.samples, *(result.doubled or ()))]

    def timing(self, key: Key, plan: SpeedPlan, seconds_at_peak: float | None = None) -> Timing:
        """Return the `Timing` of one contestant.

        Args:
            key: the contestant.
            plan: the options of the measurement.
            seconds_at_peak: the time that the counted FLOPs of a batch would take at the measured peak rate of matrix
                products; None where the FLOPs are not counted or the peak is not measured.
        """
        result, work = self.by_key[key], plan.work
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
            ratio=None if self.baseline is None else paired_ratio(result.samples, self.baseline.samples),
            ratio_to_yardstick=paired_ratio(result.samples, self.yardstick.samples),
            tokens_per_s=tokens / seconds.median,
            images_per_s=batch / seconds.median,
            peak_memory_bytes=result.peak.cuda_allocated or result.peak.rss,
            peak_reserved_bytes=result.peak.cuda_reserved,
            layer_s=estimated.layer_s if estimated else None,
            whole_s=estimated.whole_s if estimated else None,
            joules=median(joules) if joules else None,
            utilisation=None if seconds_at_peak is None else seconds_at_peak / seconds.median,
        )
