"""Search the settings of every method with the same number of trials each: `python -m benchmarks.search`.

`search.toml` lists the trials on `tiny`, and `--plan` names another list. Each trial is a run of `python -m harness
run` on the validation split, with a record in `results/search`. A trial that is recorded is not made again, so an
interrupted search goes on where it stopped.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import PRESETS
from harness.records import Record, read_records
from harness.report.searched import FOLDER

PLAN = Path(__file__).with_name("search.toml")
METRIC = "Avg"
"""The metric on the validation split that decides between trials."""

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is tried.

    Attributes:
        model: the preset.
        task: the task.
        seed: seed of every trial.
        dtype: as `run --dtype` takes it.
        length: `epochs` and `warmup_epochs` of every trial but the next ones.
        lengths: epochs that the best trial of each method is repeated with. Its warm-up takes the same share of them.
        rates: base learning rates.
        start: method -> the settings of every trial that does not change them.
        methods: method -> the settings that it is tried with, one trial each.
        together: method -> what is changed in its best trial, one trial more.
        afterwards: method -> settings that are tried once its best trial is known, to find out what holds it back. They
            are no candidates, so methods may have different numbers of them.
    """

    model: str
    task: str
    seed: int
    dtype: str
    length: Mapping[str, float]
    lengths: Sequence[float]
    rates: Sequence[float]
    start: Mapping[str, Settings]
    methods: Mapping[str, Sequence[Settings]]
    together: Mapping[str, Settings]
    afterwards: Mapping[str, Sequence[Settings]]

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read a plan from a TOML file."""
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return cls(
            content["model"],
            content["task"],
            content["seed"],
            content.get("dtype", "auto"),
            {name: content[name] for name in ("epochs", "warmup_epochs")},
            content["lengths"],
            content["base_lr"],
            content["start"],
            content["methods"],
            content.get("together", {}),
            content.get("afterwards", {}),
        )


@dataclass(frozen=True)
class Trial:
    """One run of a search: what was set for it, and its record."""

    settings: Settings
    record: Record


class Search:
    """Makes the trials of a plan.

    Args:
        plan: what is tried.
        results: the results folder.
        jobs: runs side by side.
    """

    def __init__(self, plan: Plan, results: Path, jobs: int) -> None:
        self.plan, self.folder, self.jobs = plan, results / FOLDER, jobs

    def run(self) -> dict[str, Settings]:
        """Make all trials and return the settings of the best one of each method."""
        methods = self.plan.methods
        trials: dict[str, list[Trial]] = {method: [] for method in methods}
        for rate in self.plan.rates:
            self._try(trials, {method: {**self.plan.start[method], "base_lr": rate} for method in methods})
        rates = {method: max(made, key=score).settings for method, made in trials.items()}
        for own in zip(*methods.values(), strict=True):
            self._try(trials, {method: {**rates[method], **other} for method, other in zip(methods, own, strict=True)})
        best = {method: max(made, key=score) for method, made in trials.items()}
        if self.plan.together:
            changed = {method: {**best[method].settings, **own} for method, own in self.plan.together.items()}
            self._try(trials, changed)
            best = {method: max(made, key=score) for method, made in trials.items()}
        for epochs in self.plan.lengths:
            share = epochs / self.plan.length["epochs"]
            longer = {"epochs": epochs, "warmup_epochs": round(self.plan.length["warmup_epochs"] * share, 6)}
            self._try(trials, {method: {**trial.settings, **longer} for method, trial in best.items()})
        for method, others in self.plan.afterwards.items():
            for own in others:
                self._try(trials, {method: {**best[method].settings, **own}})
        for method, trial in best.items():
            print(f"{method}: {dict(trial.settings)} is best, {METRIC} {score(trial):.2f}")
        return {method: trial.settings for method, trial in best.items()}

    def _try(self, trials: dict[str, list[Trial]], settings: Mapping[str, Settings]) -> None:
        """Train each method with its settings and add the trials."""
        plan = self.plan
        given: dict[str, Any] = {"eval_split": "val"}
        for method, own in settings.items():
            given |= {f"{method}.{name}": value for name, value in {**plan.length, **own}.items()}
        command = [sys.executable, "-m", "harness", "run", "--methods", ",".join(settings), "--model", plan.model]
        command += ["--task", plan.task, "--seeds", str(plan.seed), "--jobs", str(self.jobs)]
        command += ["--dtype", plan.dtype, "--results", str(self.folder)]
        command += [part for name, value in given.items() for part in ("--set", f"{name}={json.dumps(value)}")]
        subprocess.run(command, check=True)
        runs = plan_runs(list(settings), [], [plan.seed], PRESETS[plan.model], plan.task, Overrides(settings=given))
        records = [record for record in read_records(self.folder) if record.status == "completed"]
        for run in runs:
            trials[run.method].append(Trial(settings[run.method], newest(run, records)))


def newest(run: RunPlan, records: Iterable[Record]) -> Record:
    """Return the newest record of a run. Older ones with the same settings are of other data or of another backbone."""
    found = [record for record in records if record.method == run.method and record.config == run.resolved()]
    return max(found, key=lambda record: record.created)


def score(trial: Trial) -> float:
    """Return what decides between trials."""
    value = trial.record.metrics[METRIC].value
    assert value is not None, "an evaluation of the whole split has an average"
    return value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    Search(Plan.read(given.plan), given.results, given.jobs).run()
