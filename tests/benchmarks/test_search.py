"""The plan of the search for settings."""

import pytest

from benchmarks.search import PLAN, Plan, Search
from harness.config.plan import Overrides, plan_runs
from harness.config.presets import PRESETS
from methods import registry


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.read(PLAN)


def test_every_method_has_the_same_number_of_trials(plan: Plan) -> None:
    assert set(plan.methods) == set(registry())
    assert len({len(trials) for trials in plan.methods.values()}) == 1
    assert all(len(plan.rates) + len(trials) + 1 >= 9 for trials in plan.methods.values())


def test_every_trial_is_a_run_of_its_own(plan: Plan) -> None:
    for method, trials in plan.methods.items():
        runs = [
            plan_runs([method], [], [plan.seed], PRESETS[plan.model], plan.task, Overrides(settings=dict(own)))[0]
            for own in [*({"base_lr": rate} for rate in plan.rates), *trials, {}]
        ]
        different = {repr(run.resolved()) for run in runs}
        # One of the rates is that of the recipe.
        assert len(different) == len(runs) - 1, method


def test_a_search_takes_the_best_of_each_method(plan: Plan, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(plan, tmp_path, jobs=1)
    tried = []

    def fake(trials, settings) -> None:
        tried.append(settings)
        for method, own in settings.items():
            trials[method].append(FakeTrial(own))

    monkeypatch.setattr(search, "_try", fake)
    monkeypatch.setattr("benchmarks.search.score", lambda trial: trial.score)
    best = search.run()
    assert len(tried) == len(plan.rates) + len(plan.methods["memvp"]) + 1
    assert best["memvp"] == {"base_lr": 0.013, "memory_scale": 0.1}
    assert best["lavin"] == {"base_lr": 0.013}
    assert tried[-1]["memvp"].keys() == {"base_lr", "memory_scale", "epochs", "warmup_epochs"}


class FakeTrial:
    """A trial that is better with one rate and with one setting, and best of all for the longest training."""

    def __init__(self, settings) -> None:
        self.settings = settings
        self.score = (settings["base_lr"] == 0.013) + (settings.get("memory_scale") == 0.1) + 9 * ("epochs" in settings)
