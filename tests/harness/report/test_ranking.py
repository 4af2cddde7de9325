"""Which values of a table are marked as the best: only where a test says so."""

import csv
import io
import json
from pathlib import Path

import pytest

from harness.records import read_records
from harness.report.ranking import ranked
from harness.report.tables import leaderboard, table_text
from harness.stats import Difference
from tests.harness.report.answered import PROBLEMS, save
from tests.harness.report.boards import row
from tests.record_factory import make


def ranks(results: Path, column: str, model: str = "tiny") -> dict[str, str | None]:
    board = ranked(leaderboard(read_records(results), 1, model), results)
    return {str(r.method if r.variant is None else r.variant): r.metrics[column].rank for r in board.rows if r.runs}


def save_three(results: Path) -> None:
    """MemVP and LaVIN are alike on pictures and DEHVF is far behind; without pictures MemVP is far ahead of both."""
    for seed in range(4):
        save(results, "memvp", seed, {*range(seed, 17), *range(20, PROBLEMS)})
        save(results, "lavin", seed, {*range(1, 17 + seed % 2)})
        save(results, "dehvf", seed, {seed})


def test_best_is_said_only_where_it_is(tmp_path: Path) -> None:
    save_three(tmp_path)
    assert ranks(tmp_path, "IMG") == {"memvp": "tied", "lavin": "tied", "dehvf": "lower"}
    assert ranks(tmp_path, "Avg") == {"memvp": "best", "lavin": "lower", "dehvf": "lower"}
    text = table_text(tmp_path, 1, "tiny", "markdown")
    (memvp,) = (line for line in text.splitlines() if line.startswith("| MemVP"))
    assert memvp.count(" best |") == 1 and " a |" in memvp
    assert "- best: better than every other method of its column. a: not distinguishable from the best value" in text
    assert "- Tested over seeds and problems: IMG" in text and "- Not tested, because values are missing: " in text


def test_columns_beside_the_summary_share_one_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_three(tmp_path)
    same = Difference(5.0, 1.0, 9.0, 0.02, 4.0, 4, PROBLEMS, "seeds and problems")
    monkeypatch.setattr("harness.report.ranking.difference", lambda *args: same)
    # Two rivals: Avg is tested at 0.05 / 2 by itself, IMG and NO at 0.05 / 4.
    assert ranks(tmp_path, "Avg") == {"memvp": "best", "lavin": "lower", "dehvf": "lower"}
    for column in ("IMG", "NO"):
        assert ranks(tmp_path, column) == {"memvp": "tied", "lavin": "tied", "dehvf": "tied"}


def test_the_rank_is_a_column_of_its_own(tmp_path: Path) -> None:
    save_three(tmp_path)
    rows = json.loads(table_text(tmp_path, 1, "tiny", "json"))
    found = {r["method"]: r["metrics"]["Avg"]["rank"] for r in rows if r["seeds"]}
    assert found == {"memvp": "best", "lavin": "lower", "dehvf": "lower"}
    cells = {r["method"]: r["Avg_rank"] for r in csv.DictReader(io.StringIO(table_text(tmp_path, 1, "tiny", "csv")))}
    assert (cells["memvp"], cells["llava_lora"]) == ("best", "")


def test_reference_rows_are_not_ranked(tmp_path: Path) -> None:
    save_three(tmp_path)
    save(tmp_path, "oracle", 0, range(PROBLEMS), kind="oracle")
    for seed in range(4):
        save(tmp_path, "dehvf", seed, range(PROBLEMS), variant="no_visual_prompts", label="dehvf-no_visual_prompts")
    found = ranks(tmp_path, "Avg")
    assert (found["memvp"], found["oracle"], found["no_visual_prompts"]) == ("best", None, None)


def test_one_seed_ranks_nothing_however_large_the_difference(tmp_path: Path) -> None:
    save(tmp_path, "memvp", 0, range(PROBLEMS))
    save(tmp_path, "dehvf", 0, ())
    assert set(ranks(tmp_path, "Avg").values()) == {None}
    text = table_text(tmp_path, 1, "tiny", "markdown")
    assert "No value is called best, because fewer than two seeds are in common." in text


def test_a_row_with_too_few_seeds_keeps_the_highest_value_from_being_best(tmp_path: Path) -> None:
    save_three(tmp_path)
    save(tmp_path, "llava_lora", 0, range(20))
    assert ranks(tmp_path, "Avg") == {"memvp": "tied", "lavin": "lower", "dehvf": "lower", "llava_lora": "untested"}
    text = table_text(tmp_path, 1, "tiny", "markdown")
    assert "- ?: not tested against the best value, because fewer than two seeds are in common.\n" in text


def test_models_are_ranked_apart_and_costs_not_at_all(tmp_path: Path) -> None:
    save_three(tmp_path)
    for seed in range(4):
        save(tmp_path, "dehvf", seed, range(PROBLEMS), model="7b", kept=False)
    board = ranked(leaderboard(read_records(tmp_path), 1), tmp_path)
    assert row(board, "memvp").metrics["Avg"].rank == "best"
    assert row(board, "dehvf", model="7b").metrics["Avg"].rank is None
    times = leaderboard([make()], 2)
    assert ranked(times, tmp_path) is times


def test_a_row_that_is_better_on_the_seeds_in_common_is_not_called_lower(tmp_path: Path) -> None:
    for seed in range(3):
        save(tmp_path, "memvp", seed, {*range(8 + seed)})
        save(tmp_path, "dehvf", seed, {*range(20 + seed)})
    save(tmp_path, "memvp", 3, {*range(PROBLEMS)})
    save(tmp_path, "memvp", 4, {*range(PROBLEMS)})
    board = leaderboard(read_records(tmp_path), 1, "tiny")
    assert row(board, "memvp").metrics["Avg"].value > row(board, "dehvf").metrics["Avg"].value
    assert ranks(tmp_path, "Avg") == {"memvp": "tied", "dehvf": "tied"}
    assert "A test takes only the seeds that both rows have, with" in table_text(tmp_path, 1, "tiny", "markdown")


def test_missing_predictions_make_no_value_the_best(tmp_path: Path) -> None:
    """The seeds alone would tell the two apart: with each, MemVP is right on one problem more."""
    for seed in range(3):
        kept = seed == 0
        save(tmp_path, "memvp", seed, range(20 + seed), kept=kept)
        save(tmp_path, "dehvf", seed, range(20 + seed, 39 + seed + seed % 2), kept=kept)
    assert set(ranks(tmp_path, "Avg").values()) == {None}
    text = table_text(tmp_path, 1, "tiny", "markdown")
    assert (
        "- No value is called best, because saved predictions are missing or the column has a single problem." in text
    )


def test_a_row_without_predictions_is_untested_for_that_reason(tmp_path: Path) -> None:
    save_three(tmp_path)
    for seed in range(4):
        save(tmp_path, "llava_lora", seed, range(seed, 17), kept=False)
    assert ranks(tmp_path, "Avg")["llava_lora"] == "untested"
    text = table_text(tmp_path, 1, "tiny", "markdown")
    why = "saved predictions are missing or the column has a single problem"
    assert f"- ?: not tested against the best value, because {why}.\n" in text
