"""From the samples of one phase of a speed measurement to the timings that records hold."""

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
    """What identifies a contestant: the method's registry name (or the yardstick's), and the implementation."""

    method: str
    implementation: Implementation


@dataclass(frozen=True)
class PhaseResult:
    """What one contestant took in one phase.

    Attributes:
        samples: one per round.
        doubled: samples of the same rounds with every decoder layer twice; None where the backbone is whole.
        peak: peak memory of one step.
    """

    samples: Sequence[Sample]
    doubled: Sequence[Sample] | None
    peak: PeakMemory


@dataclass(frozen=True)
class PhaseResults:
    """What every contestant took in one phase; the n-th samples of all of them are of one round."""

    phase: Phase
    by_key: Mapping[Key, PhaseResult]

    @property
    def baseline(self) -> PhaseResult | None:
        """The method that Table 2 takes ratios to; None where it was not timed."""
        return self.by_key.get(Key(layout(TABLE).baseline or "", "shipped"))

    @property
    def yardstick(self) -> PhaseResult:
        """The bare frozen towers."""
        return self.by_key[Key(Yardstick.name, "yardstick")]

    @property
    def samples(self) -> list[Sample]:
        """Every timed sample, those with doubled layers included."""
        return [s for result in self.by_key.values() for s in (*result.samples, *(result.doubled or ()))]

    def timing(self, key: Key, plan: SpeedPlan, seconds_at_peak: float | None = None) -> Timing:
        """The record's timing of one contestant.

        Args:
            key: the contestant.
            plan: what was asked for.
            seconds_at_peak: what the counted FLOPs of a batch take at the measured peak of matrix products; None
                where one of the two is unknown.
        """
        result, work = self.by_key[key], plan.work
        seconds = spread([sample.seconds for sample in result.samples])
        batch = work.train_batch if self.phase == "train" else work.eval_batch
        # The prompt gives the first new token; every later one is fed back.
        tokens = batch * (work.text_length + (work.new_tokens - 1 if self.phase == "inference" else 0))
        joules = [sample.joules for sample in result.samples if sample.joules is not None]
        whole = whole_layers(plan.spec)
        guess = None
        if whole is not None and result.doubled is not None:
            guess = estimate(result.samples, result.doubled, llm_config(plan.spec).num_hidden_layers, whole)
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
            layer_s=guess.layer_s if guess else None,
            whole_s=guess.whole_s if guess else None,
            joules=median(joules) if joules else None,
            utilisation=None if seconds_at_peak is None else seconds_at_peak / seconds.median,
        )
