"""Tables from synthetic records: values, rows and their order."""

import pytest

from harness.report.paper import paper_rows
from harness.report.render import render
from harness.report.tables import leaderboard
from tests.harness.report.boards import ON_MINI, row
from tests.record_factory import make, speed

# ---------------------------------------------------------------- values


def test_mean_and_std_over_seeds():
    board = leaderboard([make(seed=s, value=v) for s, v in ((2, 66.0), (0, 60.0), (1, 63.0))], 1, "tiny")
    cell = row(board, "memvp").metrics["IMG"]
    assert (cell.value, cell.std, cell.n, cell.paper) == (63.0, 3.0, 1000, None)
    assert row(board, "memvp").seeds == (0, 1, 2)
    assert board.notes == (ON_MINI,)


def test_one_seed_has_no_std():
    assert row(leaderboard([make()], 1), "memvp").metrics["Avg"].std is None


def test_a_value_that_one_seed_lacks_is_absent():
    part = make(seed=1)
    metrics = {key: metric.model_dump() for key, metric in part.metrics.items()}
    metrics["NO"] = {"value": None, "n": 0, "reason": "no such problems"}
    board = leaderboard([make(seed=0), make(seed=1, metrics=metrics)], 1)
    assert row(board, "memvp").metrics["NO"].value is None
    assert row(board, "memvp").metrics["IMG"].value == 50


def test_paper_value_and_difference_at_the_papers_model():
    board = leaderboard([make(model="7b", value=93.0)], 1, "7b")
    measured = row(board, "memvp", model="7b")
    assert measured.metrics["Avg"].paper == 93.07
    assert measured.metrics["Avg"].difference == pytest.approx(-0.07)
    assert (measured.trainable, measured.paper_trainable, measured.llm) == (3_879_040, "3.9M", "some/7b")
    assert row(board, "dehvf", model="7b").metrics["Avg"].value is None
    assert row(board, "dehvf", model="7b").metrics["Avg"].paper == 93.54
    assert "93.00 / 93.07 (-0.07)" in render(board, "markdown")


# ---------------------------------------------------------------- rows and order


def test_paper_rows_in_the_papers_order_then_the_tiny_model():
    board = leaderboard([make("dehvf"), make("memvp")], 1)
    names = [(r.name, r.model) for r in board.rows]
    printed = [(r.name, r.model) for r in paper_rows(1)]
    assert names[: len(printed)] == printed
    assert [(r.method, r.variant) for r in board.rows[len(printed) :]] == [
        ("llama_adapter", None),
        ("llava_lora", None),
        ("lavin", None),
        ("memvp", None),
        ("dehvf", None),
        ("dehvf", "no_visual_prompts"),
        ("oracle", None),
    ]


def test_scale_rows_take_their_records():
    records = [
        make("dehvf", value=80.0),
        make("dehvf", variant="no_visual_prompts", value=40.0),
        make("dehvf", variant="keys_only", value=70.0),
        make("oracle", kind="oracle", value=97.0),
    ]
    board = leaderboard(records, 1, "tiny")
    assert row(board, "dehvf", "no_visual_prompts").metrics["IMG"].value == 40
    assert row(board, "oracle").metrics["IMG"].value == 97
    assert row(board, "oracle").trainable is None
    assert not [r for r in board.rows if r.variant == "keys_only"]


@pytest.mark.parametrize("model", ["tiny", "7b"])
def test_a_method_from_outside_gets_a_row(model):
    board = leaderboard([make("my_method", model=model)], 1, model)
    assert row(board, "my_method", model=model).metrics["Avg"].value == 50


def test_model_filter():
    records = [make(), make(model="7b")]
    assert {r.model for r in leaderboard(records, 1, "tiny").rows} == {"tiny"}
    assert {r.model for r in leaderboard(records, 1, "7b").rows} == {None, "7b"}
    assert {r.model for r in leaderboard(records, 1).rows} == {None, "7b", "13b", "tiny"}
    for board in (leaderboard([], 1, "tiny"), leaderboard([], 1, "other/llm")):
        assert all(cell.value is None for r in board.rows for cell in r.metrics.values())


def test_table_4_has_every_ablation_and_nothing_else():
    variants = [r.variant for r in paper_rows(4)]
    records = [make("dehvf", variant=variant, value=i) for i, variant in enumerate(variants)]
    records.append(make("memvp"))
    board = leaderboard(records, 4, "tiny")
    assert [(r.method, r.variant) for r in board.rows] == [("dehvf", variant) for variant in variants]
    assert [r.metrics["Avg"].value for r in board.rows] == list(range(8))
    assert "1 run left out: table 4 has no row for memvp." in board.notes


def test_table_3():
    metrics = {
        "BLEU-4": {"value": 30.0, "n": 9, "stderr": 1.0},
        "CIDEr": {"value": 99.0, "n": 9, "stderr": 1.0},
    }
    board = leaderboard([make("memvp", task="coco", metrics=metrics), make("memvp")], 3, "tiny")
    assert row(board, "memvp").name == "MemVP"
    assert row(board, "memvp").metrics["CIDEr"].value == 99
    rows = [(r.method, r.variant) for r in board.rows]
    assert rows == [("lavin", None), ("memvp", None), ("dehvf", None), ("dehvf", "no_visual_prompts")]


def test_table_2_ratios_measured_and_printed():
    board = leaderboard([speed("memvp", 0.2, 1.0), speed("dehvf", 0.3, 1.1)], 2, "7b")
    cells = row(board, "dehvf", model="7b").metrics
    assert cells["train"].value == 0.3 and cells["train"].n == 20
    assert cells["train_ratio"].value == pytest.approx(1.5)
    assert cells["train_ratio"].paper == pytest.approx(0.32 / 0.28)
    assert cells["inference_ratio"].value == pytest.approx(1.1)
    assert row(board, "lavin", model="7b").metrics["train_ratio"].value is None


def test_no_ratio_without_its_baseline():
    board = leaderboard([speed("dehvf", 0.3, 1.1)], 2, "7b")
    assert row(board, "dehvf", model="7b").metrics["train_ratio"].value is None
