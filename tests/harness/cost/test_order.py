"""Which runs of a sweep take longest."""

from pathlib import Path

import pytest

from harness.backbone.loader import Backbone
from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import PRESETS, BackboneSpec
from harness.cost import order
from harness.cost.order import RunFlops
from harness.run.attach import attach_on_meta
from harness.tasks.contract import DataOptions
from harness.tasks.scienceqa import ScienceQATask


def test_runs_are_ordered_as_their_recorded_times_are(mini_set: Path) -> None:
    """The order of the seconds in the records of `tiny`."""
    spec = PRESETS["tiny"]
    plans = plan_runs(["all", "oracle"], [], [0, 1], spec, "scienceqa", Overrides())
    flops = RunFlops(spec, ScienceQATask(DataOptions(mini_set)))
    found = sorted(plans, key=flops, reverse=True)
    assert list(dict.fromkeys(plan.label for plan in found)) == [
        "llava_lora",
        "dehvf",
        "lavin",
        "memvp",
        "llama_adapter",
        "oracle",
    ]
    assert flops(found[-1]) == 0 and [plan.seed for plan in found[:2]] == [0, 1]
    # Half of the training is more than half of the run, because the answers are the same.
    (whole,) = plan_runs(["memvp"], [], [0], spec, "scienceqa", Overrides())
    (half,) = plan_runs(["memvp"], [], [0], spec, "scienceqa", Overrides(epochs=whole.recipe.epochs / 2))
    other = RunFlops(spec, ScienceQATask(DataOptions(mini_set)))
    assert flops(whole) / 2 < other(half) < flops(whole)


def test_a_run_that_counts_nothing_comes_first(mini_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attached(plan: RunPlan, spec: BackboneSpec, pristine: Backbone) -> tuple[Backbone, object]:
        return (pristine, object()) if plan.label == "memvp" else attach_on_meta(plan, spec, pristine=pristine)

    monkeypatch.setattr(order, "attach_on_meta", attached)
    spec = PRESETS["tiny"]
    plans = plan_runs(["llava_lora", "memvp"], [], [0], spec, "scienceqa", Overrides())
    flops = RunFlops(spec, ScienceQATask(DataOptions(mini_set)))
    assert [plan.label for plan in sorted(plans, key=flops, reverse=True)] == ["memvp", "llava_lora"]
