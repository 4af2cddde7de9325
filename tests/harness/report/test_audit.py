"""The audit finds accuracies that cannot be true, in the paper and in records, and no others."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.problem import Problem
from harness.evaluation.scienceqa_metrics import score_scienceqa
from harness.records import Metric, Record, write_record
from harness.report.audit import PRINTED_TOLERANCE, RECORD_TOLERANCE, audit_paper, audit_row
from harness.report.paper import disagreements, load_paper
from harness.tasks.facts import TASKS
from tests.command_line import call
from tests.record_factory import make

FACTS = TASKS["scienceqa"]
SIZES = {"NAT": 5, "SOC": 3, "LAN": 2, "TXT": 4, "IMG": 6, "NO": 2, "G1-6": 7, "G7-12": 3, "Avg": 10}
RIGHT = {"NAT": 2, "SOC": 1, "LAN": 2, "TXT": 1, "IMG": 4, "NO": 1, "G1-6": 4, "G7-12": 1, "Avg": 5}


def metrics(**changed: float) -> dict[str, dict[str, float]]:
    """Return the metrics of a record that got `RIGHT` answers of `SIZES`, with some accuracies changed."""
    values = {name: 100 * RIGHT[name] / n for name, n in SIZES.items()} | changed
    return {name: {"value": values[name], "n": n, "stderr": 1.0} for name, n in SIZES.items()}


def audit(folder: Path, *records: Record) -> dict[str, dict]:
    for record in records:
        write_record(record, folder)
    done = call("audit", "--format", "json", "--results", folder)
    assert (done.code, done.err) == (0, "")
    return {row["run_id"]: row for row in json.loads(done.out)["records"]}


@given(st.integers(1, 5000), st.data())
def test_every_share_of_whole_numbers_is_possible_when_printed(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    row = audit_row({"IMG": round(100 * right / n, 2)}, {"IMG": n}, FACTS, PRINTED_TOLERANCE)
    assert row.agrees and row.cells["IMG"].right == right and not row.means


@given(st.lists(st.tuples(st.integers(1, 3000), st.floats(0, 1)), min_size=3, max_size=3))
def test_printed_columns_of_one_set_of_answers_agree(parts: list[tuple[int, float]]) -> None:
    sizes = dict(zip(("NAT", "SOC", "LAN"), (n for n, _ in parts), strict=True))
    right = dict(zip(sizes, (round(n * share) for n, share in parts), strict=True))
    sizes["Avg"], right["Avg"] = sum(sizes.values()), sum(right.values())
    printed = {name: round(100 * right[name] / n, 2) for name, n in sizes.items()}
    row = audit_row(printed, sizes, FACTS, PRINTED_TOLERANCE)
    assert row.agrees and [mean.columns for mean in row.means] == [("NAT", "SOC", "LAN")]
    moved = audit_row(printed | {"Avg": printed["Avg"] + 0.021}, sizes, FACTS, PRINTED_TOLERANCE)
    assert not moved.means[0].agrees and not moved.agrees


def test_an_impossible_accuracy_is_between_two_possible_ones() -> None:
    cell = audit_row({"IMG": 34.0}, {"IMG": 3}, FACTS, PRINTED_TOLERANCE).cells["IMG"]
    assert cell.right is None and cell.possible == pytest.approx((100 / 3, 200 / 3))


def test_the_paper_rows_that_cannot_be_true_are_listed_and_no_others() -> None:
    found = audit_paper()
    assert {len(item.found.cells) for item in found} == {1, 9}
    assert [bool(item.listed) for item in found] == [not item.found.agrees for item in found]
    assert sum(len(item.listed) for item in found) == sum(item.row is not None for item in disagreements())


def test_the_evidence_against_printed_accuracies() -> None:
    found = {(item.row.table, item.row.name, item.row.model): item.found for item in audit_paper()}
    subjects, grades = (round(mean.mean, 2) for mean in found[1, "LLaMA-Adapter", "7b"].means)
    assert (subjects, grades) == (85.38, 85.19)
    assert [round(mean.mean, 2) for mean in found[1, "Human", None].means] == [88.41, 88.31]
    assert sum(cell.right is None for cell in found[1, "Human", None].cells.values()) == 6
    for key, column, possible in (
        ((1, "DEHVF", "13b"), "Avg", (94.18, 94.20)),
        ((1, "LaVIN", "7b"), "LAN", (85.18, 85.27)),
        ((1, "MemVP", "13b"), "SOC", (95.05, 95.16)),
    ):
        cell = found[key].cells[column]
        assert cell.right is None and tuple(round(value, 2) for value in cell.possible) == possible
    sizes = load_paper().official_columns["scienceqa"]
    swapped = audit_row({"NAT": 84.37}, sizes, FACTS, PRINTED_TOLERANCE).cells["NAT"]
    assert (swapped.right, swapped.n) == (1900, 2252)


def test_sizes_of_columns_are_those_of_the_official_test_split(real_data: Path) -> None:
    path = real_data / "scienceqa_published" / "test_problems_partial.json"
    problems = json.loads(path.read_bytes()).values()
    hint, image = ({i for i, p in enumerate(problems) if p[name]} for name in ("hint", "image"))
    sizes = load_paper().official_columns["scienceqa"]
    assert (sizes["TXT"], sizes["IMG"]) == (len(hint), len(image))
    assert (sizes["NO"], sizes["Avg"]) == (len(problems) - len(hint | image), len(problems))


def test_what_the_scorer_computes_agrees() -> None:
    subjects, grades = ("natural science", "social science", "language science"), ("grade2", "grade9")
    problems = [
        Problem(str(i), "test", "?", ("a", "b"), i % 2, subject=subjects[i % 3], grade=grades[i // 7 % 2])
        for i in range(97)
    ]
    scores = score_scienceqa(problems, {str(i): i * i % 5 % 2 for i in range(97)}).metrics
    known: dict[str, Metric] = {name: metric for name, metric in scores.items() if metric.value is not None}
    values, sizes = ({name: getattr(m, field) for name, m in known.items()} for field in ("value", "n"))
    row = audit_row(values, sizes, FACTS, RECORD_TOLERANCE)
    assert row.agrees and len(row.means) == 2


def test_a_record_whose_accuracies_are_true_agrees(tmp_path: Path) -> None:
    record = make(metrics=metrics())
    row = audit(tmp_path, record)[record.run_id]
    assert row["agrees"] and {name: cell["right"] for name, cell in row["cells"].items()} == RIGHT
    assert "Every accuracy is a whole number of right answers" in call("audit", "--results", tmp_path).out


def test_records_that_cannot_be_true_are_found_and_the_status_is_0(tmp_path: Path) -> None:
    impossible, unequal = make(seed=0, metrics=metrics(IMG=66.6)), make(seed=1, metrics=metrics(SOC=200 / 3))
    rows = audit(tmp_path, impossible, unequal, make(seed=2, metrics=metrics()))
    assert [rows[run.run_id]["agrees"] for run in (impossible, unequal)] == [False, False]
    assert rows[impossible.run_id]["cells"]["IMG"]["right"] is None
    assert [mean["agrees"] for mean in rows[unequal.run_id]["means"]] == [False, True]
    text = call("audit", "--results", tmp_path)
    assert text.code == 0 and "IMG 66.600000 (50.000000 or 66.666667)" in text.out
    assert f"| {unequal.run_id}" in text.out and "NAT, SOC, LAN: 60.00 (+10.00)" in text.out


def test_captions_failed_runs_and_missing_values_are_left_out(tmp_path: Path) -> None:
    unknown = {"value": None, "n": 10, "reason": "3 problems have no grade"}
    part = make(seed=3, metrics=metrics() | {"G1-6": unknown, "G7-12": unknown})
    captions = make(task="coco", metrics={"CIDEr": {"value": 33.33, "n": 10, "stderr": 1.0}})
    rows = audit(tmp_path, part, captions, make(seed=1, status="failed"))
    assert list(rows) == [part.run_id]
    assert rows[part.run_id]["agrees"] and len(rows[part.run_id]["means"]) == 1


@pytest.mark.parametrize(("value", "n"), [(50.0, 0), (50.0, 2**63 - 1), (1e9, 1000), (-1.0, 10), (100.5, 10)])
def test_bad_records_are_one_line_and_status_2(value: float, n: int, tmp_path: Path) -> None:
    record = make(metrics=metrics() | {"IMG": {"value": value, "n": n, "stderr": 1.0}})
    path = write_record(record, tmp_path)
    done = call("audit", "--results", tmp_path)
    assert (done.code, done.out) == (2, "") and f"{record.run_id}: metrics.IMG" in done.err
    path.write_text("{", encoding="utf-8")
    done = call("audit", "--results", tmp_path)
    assert done.code == 2 and str(path) in done.err and done.err.count("\n") == 1
