"""Two methods side by side: the verdict, the columns, and what cannot be compared."""

import json
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.records import predictions_path, record_path, write_record
from harness.report.compare import compare
from tests.command_line import call
from tests.harness.report.answered import PROBLEMS, save
from tests.record_factory import WHY, make

PAIR = ("dehvf", "memvp", "tiny", "scienceqa")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three seeds: DEHVF is better on pictures, and the two are the same elsewhere."""
    for seed in range(3):
        save(tmp_path, "dehvf", seed, {*range(15 + seed), *range(20, 30)})
        save(tmp_path, "memvp", seed, {*range(3), *range(20, 30)})
    save(tmp_path, "memvp", 7, range(PROBLEMS))
    save(tmp_path, "lavin", 8, range(9))
    save(tmp_path, "dehvf", 0, range(4), variant="no_visual_prompts", label="dehvf-no_visual_prompts")
    return tmp_path


def test_seeds_and_problems_are_paired(results: Path) -> None:
    found = compare(results, *PAIR)
    assert found.seeds == (0, 1, 2)
    assert found.means["IMG"] == (pytest.approx(80.0), pytest.approx(15.0))
    one = found.differences["IMG"]
    assert (one.value, one.seeds, one.problems, one.over) == (pytest.approx(65.0), 3, 20, "seeds and problems")
    assert found.differences["Avg"].problems == PROBLEMS and found.differences["NO"].p_value == 1
    assert "NAT" not in found.differences  # no run has a value there
    back = compare(results, "memvp", "dehvf", "tiny", "scienceqa")
    assert back.differences["Avg"].value == -found.differences["Avg"].value
    assert back.verdict.startswith(
        "DEHVF is better than MemVP on Avg: a difference of -32.50 points (MemVP minus DEHVF"
    )


def test_the_summary_column_keeps_its_p_and_the_others_are_corrected(results: Path) -> None:
    found = compare(results, *PAIR)
    assert found.corrected["Avg"] == found.differences["Avg"].p_value
    assert found.differences["IMG"].p_value is not None and found.corrected["NO"] == 1
    assert found.corrected["IMG"] == pytest.approx(2 * found.differences["IMG"].p_value)


def test_the_verdict_is_said_in_sentences(results: Path) -> None:
    done = call("compare", "dehvf", "memvp", "--results", results)
    assert done.code == 0
    first, *_ = done.out.splitlines()
    assert first.startswith("DEHVF is better than MemVP on Avg: a difference of +32.50 points (DEHVF minus MemVP, 95 %")
    assert "over 3 seeds and 40 problems" in first and "would be found with a probability of 80 %" in first
    assert "On the other 2 columns, these differ after Holm's correction: IMG (+65.00)." in first
    assert "mixed model of the paired answers" in done.out


def test_methods_that_cannot_be_told_apart(tmp_path: Path) -> None:
    for seed in range(3):
        save(tmp_path, "dehvf", seed, range(seed, 20 + seed))
        save(tmp_path, "memvp", seed, range(1 + seed, 20 + seed))
    found = compare(tmp_path, *PAIR)
    assert found.verdict.startswith("DEHVF and MemVP cannot be told apart on Avg: a difference of +2.50 points")
    assert "On the other 2 columns, no difference is significant after Holm's correction." in found.verdict


def test_one_seed_compares_trained_models_only(results: Path) -> None:
    found = compare(results, "dehvf", "blind", "tiny", "scienceqa")
    one = found.differences["IMG"]
    assert (found.seeds, one.over, one.seeds) == ((0,), "problems", 1)
    assert one.p_value == pytest.approx(2 / 2**11)  # eleven problems against none
    assert found.verdict.startswith(
        "One seed does not compare methods. The two trained models of DEHVF and blind differ on Avg"
    )


def test_scores_that_are_no_shares_of_right_answers_are_tested_over_seeds(tmp_path: Path) -> None:
    for seed, (ours, theirs) in enumerate(((10.0, 9.0), (12.0, 10.0), (14.0, 11.0))):
        for method, value in (("dehvf", ours), ("memvp", theirs)):
            metrics = {name: {"value": value, "n": 9, "stderr": 1.0} for name in ("BLEU-4", "CIDEr")}
            save(tmp_path, method, seed, (), kept=False, task="coco", metrics=metrics)
    one = compare(tmp_path, "dehvf", "memvp", "tiny", "coco").differences["CIDEr"]
    assert (one.over, one.problems) == ("seeds", None)
    assert one.p_value == pytest.approx(0.0742, abs=1e-4)  # t = 2·√3, two degrees of freedom
    done = call("compare", "dehvf", "memvp", "--task", "coco", "--results", tmp_path)
    assert "no answers of single problems" in done.out


@pytest.mark.parametrize(("kept", "seeds", "over"), [(2, 2, "seeds and problems"), (1, 3, "nothing")])
def test_a_missing_predictions_file_leaves_its_seed_out(tmp_path: Path, kept: int, seeds: int, over: str) -> None:
    for seed in range(3):
        save(tmp_path, "dehvf", seed, range(9 + 2 * seed))
        save(tmp_path, "memvp", seed, range(seed), kept=seed < kept)
    found = compare(tmp_path, *PAIR)
    one = found.differences["Avg"]
    assert (one.seeds, one.over) == (seeds, over)
    assert (one.p_value is None) == (over == "nothing") == ("because saved predictions are missing" in found.verdict)
    assert any("whose predictions are missing" in note for note in found.notes) == (seeds < 3)


def test_a_verdict_on_published_protocols_says_that_they_differ(tmp_path: Path) -> None:
    config = {"train": {"protocol": "published"}}
    for seed in range(3):
        save(tmp_path, "dehvf", seed, range(30 + seed), config=config)
        save(tmp_path, "memvp", seed, range(seed), config=config)
    asked = ("compare", "dehvf", "memvp", "--results", tmp_path, "--protocol", "published")
    said = "Each method has its own protocol here, so a difference may come from the protocols. DEHVF is better"
    assert call(*asked).out.startswith(said)
    assert json.loads(call(*asked, "--format", "json").out)["verdict"].startswith(said)


def test_predictions_that_name_no_columns_tell_the_summary_column(tmp_path: Path) -> None:
    for seed in range(2):
        save(tmp_path, "dehvf", seed, range(9 + 2 * seed), named=False)
        save(tmp_path, "memvp", seed, range(seed), named=False)
    found = compare(tmp_path, *PAIR).differences
    assert (found["Avg"].over, found["IMG"].over) == ("seeds and problems", "nothing")


def test_one_seed_without_answers_is_not_tested(tmp_path: Path) -> None:
    for method in ("dehvf", "memvp"):
        save(tmp_path, method, 0, range(9), kept=False)
    found = compare(tmp_path, *PAIR)
    assert found.corrected == {"IMG": None, "NO": None, "Avg": None}
    assert "because saved predictions are missing or the column has a single problem" in found.verdict
    assert "| n/a |" in call("compare", "dehvf", "memvp", "--results", tmp_path).out.replace("   ", " ")


def test_as_json(results: Path) -> None:
    data = json.loads(call("compare", "dehvf", "memvp", "--results", results, "--format", "json").out)
    assert data["differences"]["IMG"]["value"] == pytest.approx(65.0)
    assert data["verdict"].startswith("DEHVF is better") and data["corrected"]["NO"] == 1


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (("dehvf", "memv"), "scienceqa", "memv: none of its runs on tiny for scienceqa .* choose from: dehvf, .*memvp"),
        (("dehvf", "lavin"), "scienceqa", "no seed in common on tiny; run both with the same --seeds"),
        (("dehvf", "memvp"), "coco", "choose from: none"),
        (("dehvf", "memvp"), "vqa", "--task vqa: no such task; choose one of coco, scienceqa"),
    ],
)
def test_what_cannot_be_compared_is_said(results: Path, labels: tuple[str, str], task: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(results, *labels, "tiny", task)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"qid": "1", "choice": 1, "gold": 1}\n', "dehvf, memvp: the saved predictions are not for the same problems"),
        (
            '{"qid": "1", "choice": 0}\n',
            r"predictions.jsonl, line 1: expected a record with 'qid', 'choice' and 'gold'",
        ),
        ('{"qid": "1", "choice": 0, "gold": 1}\n' * 2, r"predictions.jsonl, line 2: .* each qid once"),
        ('{"qid": "1", "choice": 0, "gold": 1, "columns": "IMG"}\n', "line 1: expected a record"),
        ("[1]\n", "line 1: expected a record"),
        ("{", "line 1: not valid JSON"),
        ('{"qid": "1", "choice": 0, "gold": 1}\n', "the answers do not give the Avg of the record"),
        ("", "the answers do not give the Avg of the record"),
    ],
)
def test_predictions_that_do_not_hold_are_refused(tmp_path: Path, lines: str, message: str) -> None:
    save(tmp_path, "dehvf", 0, range(PROBLEMS))
    path = predictions_path(record_path(save(tmp_path, "memvp", 0, range(PROBLEMS)), tmp_path))
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        compare(tmp_path, *PAIR)


def test_the_runs_are_those_of_the_table(tmp_path: Path) -> None:
    other = {"weight_hash": "1" * 64}
    for method in ("dehvf", "memvp"):
        for seed in range(2):
            write_record(make(method, seed, value=60.0), tmp_path)
    for seed in range(5):
        write_record(make("dehvf", seed, variant="keys_only", backbone=other), tmp_path)
    assert compare(tmp_path, "dehvf", "memvp", "tiny", "scienceqa").seeds == (0, 1)


def test_what_was_left_out_is_said(results: Path) -> None:
    save(results, "dehvf", 9, range(9), kept=False, status="failed", metrics={})
    assert "1 run left out: failed." in call("compare", "dehvf", "memvp", "--results", results).out


def test_what_is_noted_is_about_the_compared_methods(results: Path) -> None:
    missing = {key: why for key, why in WHY.items() if key not in ("parse_failures", "parameters")}
    for method in ("dehvf", "llama_adapter"):
        unreadable = {"parse_failures": {"count": 3, "n": 200}, "missing": missing}
        save(results, method, 11, range(9), **unreadable)
    out = call("compare", "dehvf", "memvp", "--results", results).out
    assert "could not be read: dehvf" in out and "llama_adapter" not in out
