"""Two records of one run: identical, within a limit, or different, and what differs first."""

import json
from pathlib import Path
from typing import Any

from harness.records import Record, predictions_path, record_path, spec_hash
from harness.report.rerun import Verification, changed_inputs, verification, verification_text
from tests.harness.report.answered import save
from tests.record_factory import fields


def compared(folder: Path, then: Record, again: Record, within: float | None = None) -> Verification:
    return verification(then, record_path(then, folder), again, record_path(again, folder), within)


def test_the_same_answers_and_scores_are_identical(tmp_path: Path) -> None:
    found = compared(tmp_path, save(tmp_path, "memvp", 0, range(9)), save(tmp_path, "memvp", 0, range(9)))
    assert (found.outcome, found.points, found.before, found.answers and found.answers.first) == (
        "identical",
        0,
        (),
        None,
    )
    shown = verification_text(found, "markdown")
    assert shown == "identical: scores and losses are the same; all 40 answers are the same"


def test_scores_that_differ_by_rounding_alone_are_identical(tmp_path: Path) -> None:
    then = save(tmp_path, "memvp", 0, range(9))
    metrics = {name: m.model_dump() | {"value": (m.value or 0) + 1e-14} for name, m in then.metrics.items()}
    assert compared(tmp_path, then, save(tmp_path, "memvp", 0, range(9), metrics=metrics)).outcome == "identical"


def test_the_first_answer_that_differs_is_named(tmp_path: Path) -> None:
    runs = save(tmp_path, "memvp", 0, range(9)), save(tmp_path, "memvp", 0, {*range(5), 6, 7, 8, 30, 31})
    found = compared(tmp_path, *runs)
    # Avg is 22.5 and 25; IMG 45 and 40; NO 0 and 10, with a standard error of 1 each.
    assert found.outcome == "different" and found.points == 10
    assert found.answers is not None and (found.answers.count, found.answers.different) == (40, 3)
    assert found.answers.first == "qid 5: choice: 1 in the record, 0 now"
    shown = verification_text(found, "markdown")
    assert "NO differs by 10.00 points; the limit is 2.00" in shown
    assert shown.endswith("different: scores differ by up to 10.00 points; 3 of 40 answers differ")
    near = compared(tmp_path, *runs, within=10.0)
    assert verification_text(near, "markdown").endswith("within 10.00 points: 3 of 40 answers differ")
    assert json.loads(verification_text(near, "json"))["outcome"] == "within"


def test_rows_that_one_run_lacks_and_scores_without_a_value(tmp_path: Path) -> None:
    then, again = save(tmp_path, "memvp", 0, range(9)), save(tmp_path, "memvp", 0, range(9), metrics={})
    path = predictions_path(record_path(again, tmp_path))
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    found = compared(tmp_path, then, again)
    assert found.outcome == "different" and found.beyond["IMG"] == (None, 2.0)
    assert found.answers is not None and found.answers.first == "40 rows in the record, 39 now"
    assert "IMG has a value in one of the two runs only" in verification_text(found, "markdown")


def test_fields_that_older_predictions_lack_do_not_count(tmp_path: Path) -> None:
    found = compared(tmp_path, save(tmp_path, "memvp", 0, range(9), named=False), save(tmp_path, "memvp", 0, range(9)))
    assert found.outcome == "identical"
    without = compared(tmp_path, save(tmp_path, "memvp", 0, range(9), kept=False), save(tmp_path, "memvp", 0, range(9)))
    assert verification_text(without, "markdown").endswith("no answers are saved with the record")


def test_code_libraries_and_threads_that_differ_are_said(tmp_path: Path) -> None:
    environment = fields()["environment"].model_dump(mode="json")
    versions = environment["versions"] | {"torch": "1.0"}
    other: dict[str, Any] = {
        "environment": environment | {"threads": 2, "deterministic": True, "versions": versions},
        "git": {"commit": "b" * 40, "dirty": True},
    }
    found = compared(tmp_path, save(tmp_path, "memvp", 0, ()), save(tmp_path, "memvp", 0, (), **other))
    assert found.outcome == "identical"
    assert found.before == (
        "code: aaaaaaaaaaaa in the record, bbbbbbbbbbbb with uncommitted changes now",
        f'torch: "{environment["versions"]["torch"]}" in the record, "1.0" now',
        "threads: 1 in the record, 2 now",
        "deterministic: false in the record, true now",
    )


def test_what_a_run_starts_from(tmp_path: Path) -> None:
    saved = save(tmp_path, "memvp", 0, ())
    data = {"data_hash": saved.data.data_hash, "limit": None, "skipped_images": 0}
    same = {"config": saved.config, **data, "backbone": saved.backbone.model_dump(mode="json")}
    record = saved.model_copy(update={"spec_hash": spec_hash(same)})
    assert changed_inputs(record, same) == []
    (line,) = changed_inputs(record, same | {"descriptions": "d" * 64})
    assert line.startswith(f"spec_hash: {record.spec_hash} in the record, ") and "descriptions of the images" in line
    changed = same | {"limit": 5, "config": {"lr": 1e-3, "rank": 4}}
    assert changed_inputs(record, changed) == [
        "config.rank: null in the record, 4 now",
        "limit: null in the record, 5 now",
    ]
