"""The committed results page and the table in README.md agree with the committed records."""

import shutil
from collections import defaultdict
from pathlib import Path

from harness.records import Record, read_records
from harness.report.compare import compare
from harness.report.readme import write_readme
from harness.report.searched import FOLDER, tried
from harness.report.tables import table_text
from methods import registry

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"


def test_readme_shows_the_table_of_the_records() -> None:
    rows = [line for line in table_text(RESULTS, 1, "tiny", "markdown").splitlines() if line.startswith("|")]
    assert len(rows) > 5
    assert "\n".join(rows) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_says_what_the_comparison_says() -> None:
    quoted = [line[2:] for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line[:2] == "> "]
    assert " ".join(quoted) == compare(RESULTS, "dehvf", "memvp", "tiny", "scienceqa").verdict


def test_the_page_of_results_is_up_to_date(tmp_path: Path) -> None:
    copied = shutil.copytree(RESULTS, tmp_path / "results")
    before = (copied / "README.md").read_text(encoding="utf-8")
    assert write_readme(copied).read_text(encoding="utf-8") == before


def test_every_method_was_searched_as_much_and_its_recipe_is_its_best_trial() -> None:
    trials: dict[str, list[Record]] = defaultdict(list)
    for record in read_records(RESULTS / FOLDER):
        assert (record.task, record.model, record.seed, record.status) == ("scienceqa", "tiny", 0, "completed")
        trials[record.method].append(record)
    assert set(trials) == set(registry())
    assert len({len(runs) for runs in trials.values()}) == 1
    for runs in trials.values():
        # The search changed one thing at a time around the best trial: the learning rate, then the scales. All methods
        # are trained for the same length, so a longer trial is not a candidate.
        fields = {run.run_id: set(tried(run, runs)) for run in runs}
        longer = [run for run in runs if fields[run.run_id] == {"epochs", "warmup_epochs"}]
        assert len(longer) <= 1
        candidates = [run for run in runs if run not in longer]
        best = max(candidates, key=lambda run: (run.metrics["Avg"].value, run.metrics["IMG"].value))
        assert fields[best.run_id] == set(), best.run_id
        assert sum("base_lr" in fields[run.run_id] for run in candidates) == 3
