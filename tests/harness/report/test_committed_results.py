"""The committed records: one can be made again, and the results page and README.md agree with all of them."""

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.search import PLAN, Plan
from harness.records import Record, read_diagnostics, read_records, read_remarks, record_path, write_record
from harness.report.compare import compare
from harness.report.paper import method_names
from harness.report.readme import write_readme
from harness.report.searched import FOLDER, tried
from harness.report.tables import table_text
from harness.stats import mean
from methods import BUILT_IN
from methods.fuser import visual_groups
from tests.command_line import call

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"

UNLIKE = 0.01
"""Share of answers that another processor may give differently, where two options are almost equally likely."""


@pytest.mark.slow
def test_a_committed_record_can_be_made_again(tmp_path: Path) -> None:
    # The oracle trains nothing, so its record is the cheapest. It depends on the generated data, the language model,
    # its tokenizer, the prompts, the decoder and the scores.
    oracle = next(record for record in read_records(RESULTS) if record.kind == "oracle")
    path, kept = record_path(oracle, RESULTS), ("--into", tmp_path / "again", "--format", "json")
    done = call("verify", path, *kept)
    assert done.code == 0, done.out + done.err
    found = json.loads(done.out)
    assert found["outcome"] in ("identical", "within")
    assert found["answers"]["count"] == oracle.metrics["Avg"].n
    assert found["answers"]["different"] <= UNLIKE * found["answers"]["count"], found["answers"]["first"]
    # A record that says something else is found out. The second run was kept, so it is not made a third time.
    avg = oracle.metrics["Avg"]
    false = avg.model_copy(update={"value": avg.value - 3})
    other = oracle.model_copy(update={"metrics": {**oracle.metrics, "Avg": false}})
    done = call("verify", write_record(other, tmp_path / "other"), *kept)
    assert done.code == 1 and "already recorded" in done.err
    assert set(json.loads(done.out)["beyond"]) == {"Avg"}


def test_readme_shows_the_table_of_the_records() -> None:
    rows = [line for line in table_text(RESULTS, 1, "tiny", "markdown").splitlines() if line.startswith("|")]
    assert len(rows) > 5
    assert "\n".join(rows) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_cost_of_the_tiny_size_is_that_of_its_record() -> None:
    wanted = ("speed", "tiny", "dehvf")
    (timed,) = [one for one in read_records(RESULTS) if (one.kind, one.model, one.label) == wanted]
    assert timed.speed is not None
    said = " ".join((ROOT / "docs/cost.md").read_text(encoding="utf-8").split())
    for phase, name in (("train", "training"), ("inference", "inference")):
        ratio = timed.speed.phases[phase].ratio
        assert ratio is not None
        assert re.search(
            rf"{ratio.median:.2f} times as long (as MemVP )?in {name} \({ratio.p10:.2f} to {ratio.p90:.2f}\)", said
        )


def test_the_cost_of_the_benchmark_size_is_that_of_its_records() -> None:
    names = {**method_names(), "dehvf-plain": "DEHVF's plain reading"}
    said = (ROOT / "docs/cost.md").read_text(encoding="utf-8")
    rows = set()
    for timed in read_records(RESULTS):
        if timed.kind != "speed" or timed.model != "bench" or timed.label not in ("memvp", "dehvf", "dehvf-plain"):
            continue
        assert timed.speed is not None
        phases = (
            {"inference": "20 tokens"}
            if timed.speed.setting.new_tokens == 20
            else {"train": "training", "inference": "inference"}
        )
        for phase, name in phases.items():
            timing = timed.speed.phases[phase]
            to_towers = timed.label == "memvp" or name == "20 tokens"
            ratio, base = (timing.ratio_to_yardstick, "bare towers") if to_towers else (timing.ratio, "MemVP")
            assert ratio is not None
            row = f"| {names[timed.label]} / {base}, {name}"
            value = f"| {ratio.median:.3f} ({ratio.ci_low:.3f} to {ratio.ci_high:.3f}) |"
            rows |= {row for line in said.splitlines() if line.startswith(row) and value in line}
    assert len(rows) == 7, sorted(rows)


def test_remarks_are_about_committed_runs() -> None:
    known = {record.spec_hash for record in read_records(RESULTS)}
    assert {run for remark in read_remarks(RESULTS) for run in remark.runs} <= known


def test_findings_say_what_the_diagnostics_and_comparisons_say() -> None:
    said = " ".join((ROOT / "docs/findings.md").read_text(encoding="utf-8").split())
    for method in ("dehvf", "memvp"):
        one = compare(RESULTS, method, "llava_lora", "tiny", "coco").differences["CIDEr"]
        assert re.search(rf"{method_names()[method]} by {one.value:.2f}, p = {one.p_value:.3f}", said)
    runs = [r for r in read_records(RESULTS) if (r.task, r.model, r.label) == ("scienceqa", "tiny", "dehvf")]
    for run in (run for run in runs if run.kind == "train"):
        kept = read_diagnostics(record_path(run, RESULTS))
        assert kept is not None
        (figure,) = (matrix for matrix in kept.matrices if matrix.name == "figure3")
        # The share of the penultimate block, divided by that of equal weights among the features of the group.
        groups = visual_groups(len(figure.mean[0]), len(figure.mean))
        penultimate = len(figure.mean[0]) - 1
        shares = [
            row[penultimate - 1] * len(group) / group.count(penultimate)
            for row, group in zip(figure.mean, groups, strict=True)
        ]
        assert f"| {run.seed} | {' | '.join(f'{share:.2f}' for share in shares)} |" in said
        first, _, third, last = shares
        assert first > third > last  # as the text below the table says


def test_findings_show_the_captions_of_both_language_models() -> None:
    runs: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for run in read_records(RESULTS):
        if run.task == "coco" and run.kind == "train":
            runs[run.model, run.label].append(run)
    names = {**method_names(), "dehvf-no_visual_prompts": "`blind`"}
    rows = {}
    for (model, label), (run, *others) in runs.items():
        if model == "smol":
            assert not others
            cider, bleu = run.metrics["CIDEr"], run.metrics["BLEU-4"]
            tiny = mean([one.metrics["CIDEr"].value or 0.0 for one in runs["tiny", label]])
            row = f"| {names[label]} | {bleu.value:.1f} | {cider.value:.1f} ± {cider.stderr:.1f} | {tiny:.1f} |"
            rows[row] = cider.value or 0.0
    assert len(rows) == 5
    said = "\n".join(sorted(rows, key=lambda row: -rows[row]))
    assert said in (ROOT / "docs/findings.md").read_text(encoding="utf-8")


def test_readme_says_what_the_comparison_says() -> None:
    quoted = [line[2:] for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line[:2] == "> "]
    assert " ".join(quoted) == compare(RESULTS, "dehvf", "memvp", "tiny", "scienceqa").verdict


@pytest.mark.slow
def test_the_page_of_results_is_up_to_date(tmp_path: Path) -> None:
    copied = shutil.copytree(RESULTS, tmp_path / "results")
    before = (copied / "README.md").read_text(encoding="utf-8")
    assert write_readme(copied).read_text(encoding="utf-8") == before


def test_every_method_was_searched_as_much_and_its_recipe_is_its_best_trial() -> None:
    trials: dict[str, list[Record]] = defaultdict(list)
    for record in read_records(RESULTS / FOLDER):
        assert (record.task, record.model, record.seed, record.status) == ("scienceqa", "tiny", 0, "completed")
        trials[record.method].append(record)
    assert set(trials) == set(BUILT_IN)
    plan = Plan.read(PLAN)
    said = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
    for method, runs in trials.items():
        # Trials that were made to find out what holds a method back are no candidates.
        for own in plan.afterwards.get(method, []):
            (later,) = (run for run in runs if own.items() <= {**run.config["method"], **run.recipe}.items())
            runs.remove(later)
        # All methods are trained for the same length, so a longer trial is not a candidate.
        fields = {run.run_id: set(tried(run, runs)) for run in runs}
        longer = [run for run in runs if "epochs" in fields[run.run_id]]
        assert sorted(run.recipe["epochs"] for run in longer) == plan.lengths
        assert {frozenset(fields[run.run_id]) for run in longer} == {frozenset({"epochs", "warmup_epochs"})}
        assert len(runs) - len(longer) == len(plan.rates) + len(plan.methods[method]) + 1 == 9
        candidates = [run for run in runs if run not in longer]
        best = max(candidates, key=lambda run: (run.metrics["Avg"].value, run.metrics["IMG"].value))
        assert fields[best.run_id] == set(), best.run_id
        assert {run.recipe["base_lr"] for run in candidates} == set(plan.rates)
        averages = [run.metrics["Avg"].value for run in sorted((best, *longer), key=lambda run: run.recipe["epochs"])]
        assert f"| {method_names()[method]} | {' | '.join(map('{:.1f}'.format, averages))} |\n" in said
