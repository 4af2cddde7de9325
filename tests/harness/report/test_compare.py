"""Two methods side by side: over seeds, over problems, and what cannot be compared."""

import json

import pytest

from harness.errors import UserError
from harness.records import write_predictions, write_record
from harness.report.compare import compare, compare_text
from tests.record_factory import make


def save(results, method, seed, value, right=None, **changes):
    run = make(method, seed=seed, value=value, **changes)
    path = write_record(run, results)
    if right is not None:
        rows = [{"qid": str(i), "choice": int(i in right), "gold": 1} for i in range(20)]
        write_predictions(path, rows)


@pytest.fixture
def results(tmp_path):
    for seed, (ours, theirs) in enumerate(((10.0, 9.0), (12.0, 10.0), (14.0, 11.0))):
        save(tmp_path, "dehvf", seed, ours, range(8))
        save(tmp_path, "memvp", seed, theirs, range(8, 10))
    save(tmp_path, "memvp", 7, 99.0)
    save(tmp_path, "lavin", 8, 50.0)
    save(tmp_path, "dehvf", 0, 5.0, variant="no_visual_prompts", label="dehvf-no_visual_prompts")
    return tmp_path


def test_shared_seeds_are_paired(results):
    found = compare(results, "dehvf", "memvp", "tiny", "scienceqa")
    assert found.seeds == (0, 1, 2)
    assert found.means["IMG"] == (12.0, 10.0)
    assert found.metrics["IMG"].difference == pytest.approx(2.0)
    assert found.metrics["IMG"].p_value == pytest.approx(0.0742, abs=1e-4)  # t = 2·√3, two degrees of freedom
    back = compare(results, "memvp", "dehvf", "tiny", "scienceqa")
    assert back.metrics["Avg"].difference == -found.metrics["Avg"].difference


def test_answers_are_compared_problem_by_problem(results):
    found = compare(results, "dehvf", "memvp", "tiny", "scienceqa").problems
    assert found.keys() == {0, 1, 2}
    assert found[0].difference == pytest.approx(100 * 6 / 20) and found[0].n == 20
    assert found[0].p_value == pytest.approx(112 / 1024)  # eight against two


def test_one_seed_has_no_p_and_no_predictions_no_problems(results):
    found = compare(results, "dehvf", "blind", "tiny", "scienceqa")
    assert (found.seeds, found.metrics["IMG"].p_value, found.problems) == ((0,), None, {})
    shown = compare_text(results, "dehvf", "blind", "tiny", "scienceqa", "markdown")
    assert "| n/a |" in shown.replace("   ", " ") and "McNemar" not in shown


def test_as_json(results):
    data = json.loads(compare_text(results, "dehvf", "memvp", "tiny", "scienceqa", "json"))
    assert data["metrics"]["IMG"]["difference"] == pytest.approx(2.0)
    assert data["problems"]["1"]["n"] == 20


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (("dehvf", "memv"), "scienceqa", "memv: none of its runs on tiny for scienceqa .* choose from: dehvf, .*memvp"),
        (("dehvf", "lavin"), "scienceqa", "no seed in common on tiny; run both with the same --seeds"),
        (("dehvf", "memvp"), "coco", "choose from: none"),
        (("dehvf", "memvp"), "vqa", "--task vqa: no such task; choose one of coco, scienceqa"),
    ],
)
def test_what_cannot_be_compared_is_said(results, labels, task, message):
    with pytest.raises(UserError, match=message):
        compare(results, *labels, "tiny", task)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"qid": "1", "choice": 0, "gold": 1}\n', "seed 1: the saved predictions are not for the same problems"),
        (
            '{"qid": "1", "choice": 0}\n',
            r"predictions.jsonl, line 1: expected a record with 'qid', 'choice' and 'gold'",
        ),
        ('{"qid": "1", "choice": 0, "gold": 1}\n' * 2, r"predictions.jsonl, line 2: .* each qid once"),
        ("[1]\n", "line 1: expected a record"),
        ("{", "line 1: not valid JSON"),
    ],
)
def test_predictions_that_do_not_hold_are_refused(results, lines, message):
    (path,) = (results / "records" / "scienceqa" / "tiny" / "memvp").glob("seed1-*.predictions.jsonl")
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        compare(results, "dehvf", "memvp", "tiny", "scienceqa")


def test_what_was_left_out_is_said(results):
    save(results, "dehvf", 9, 1.0, status="failed")
    assert "1 run left out: failed." in compare_text(results, "dehvf", "memvp", "tiny", "scienceqa", "markdown")
