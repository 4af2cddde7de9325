"""The plan of the search for settings."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks.search import PLAN, Plan, Search, newest
from harness.config.plan import Overrides, plan_runs
from harness.config.presets import PRESETS
from harness.records import read_records
from harness.report.searched import FOLDER
from methods import BUILT_IN

PLANS = sorted(PLAN.parent.glob("search*.toml"))
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.read(PLAN)


def test_every_method_has_as_many_trials_on_tiny(plan: Plan) -> None:
    assert set(plan.methods) == set(BUILT_IN)
    assert set(plan.together) == set(BUILT_IN)
    assert all(len(plan.rates) + len(trials) + 1 >= 9 for trials in plan.methods.values())


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_trial_is_a_run_of_its_own(path: Path) -> None:
    plan = Plan.read(path)
    assert len({len(trials) for trials in plan.methods.values()}) == 1
    for method, trials in plan.methods.items():
        runs = [
            plan_runs([method], [], [plan.seed], PRESETS[plan.model], plan.task, Overrides(settings=own))[0]
            for own in [
                *({**plan.start[method], "base_lr": rate} for rate in plan.rates),
                *trials,
                *plan.afterwards.get(method, []),
            ]
        ]
        assert len({repr(run.resolved()) for run in runs}) == len(runs), method


def test_a_search_takes_the_best_of_each_method(plan: Plan, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(replace(plan, afterwards={}), tmp_path, jobs=1)
    tried = []

    monkeypatch.setattr(search, "_try", lambda trials, settings: tried.append(settings) or fill(trials, settings))
    monkeypatch.setattr("benchmarks.search.score", lambda trial: trial.score)
    best = search.run()
    assert len(tried) == len(plan.rates) + len(plan.methods["memvp"]) + 4
    assert best["memvp"] == {"base_lr": 0.013, "memory_scale": 0.1, "visual_scale": 0.03}
    assert best["lavin"] == {"base_lr": 0.013, "adapter_scale": 0.3}
    lengths = [(own["memvp"].get("epochs"), own["memvp"].get("warmup_epochs")) for own in tried]
    assert lengths[-4:] == [(None, None), (6.0, 0.6), (7.0, 0.7), (8.0, 0.8)]


def test_a_search_need_not_train_longer(plan: Plan, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(replace(plan, lengths=[], afterwards={}), tmp_path, jobs=1)
    tried = []
    monkeypatch.setattr(search, "_try", lambda trials, settings: tried.append(settings) or fill(trials, settings))
    monkeypatch.setattr("benchmarks.search.score", lambda trial: trial.score)
    search.run()
    assert all("epochs" not in own for settings in tried for own in settings.values())


def test_what_is_tried_afterwards_is_never_chosen(plan: Plan, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    better = replace(plan, afterwards={"lavin": [{"memory_scale": 0.1}]})
    search = Search(better, tmp_path, jobs=1)
    tried = []
    monkeypatch.setattr(search, "_try", lambda trials, settings: tried.append(settings) or fill(trials, settings))
    monkeypatch.setattr("benchmarks.search.score", lambda trial: trial.score)
    best = search.run()
    assert tried[-1] == {"lavin": {"base_lr": 0.013, "adapter_scale": 0.3, "memory_scale": 0.1}}
    assert best["lavin"] == {"base_lr": 0.013, "adapter_scale": 0.3}


def test_a_trial_is_the_newest_record_with_its_settings(plan: Plan) -> None:
    records = read_records(RESULTS / FOLDER)
    run = plan_runs(
        ["memvp"], [], [0], PRESETS["tiny"], "scienceqa", Overrides(settings={"eval_split": "val", **plan.length})
    )[0]
    (record,) = (r for r in records if r.method == "memvp" and r.config == run.resolved())
    older = record.model_copy(update={"created": record.created - timedelta(days=1)})
    assert newest(run, [older, *records]) == newest(run, [*records, older]) == record


def fill(trials, settings) -> None:
    """Stand in for making the trials."""
    for method, own in settings.items():
        trials[method].append(FakeTrial(own))


class FakeTrial:
    """A trial that is better with one rate and with one setting, and best of all for the longest training."""

    def __init__(self, settings) -> None:
        self.settings = settings
        self.score = (settings["base_lr"] == 0.013) + (settings.get("memory_scale") == 0.1) + 9 * ("epochs" in settings)
