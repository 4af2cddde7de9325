"""Tables from synthetic records: values, order, what is left out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.report.paper import paper_rows
from harness.report.render import render
from harness.report.tables import leaderboard
from tests.record_factory import make, speed


def row(board, method, variant=None, model="tiny"):
    found = [r for r in board.rows if (r.method, r.variant, r.model) == (method, variant, model)]
    assert len(found) == 1
    return found[0]


ON_MINI = "tiny is on the data set `scienceqa-mini` (3,600 / 500 / 1,000 samples), not on the official one."


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


# ---------------------------------------------------------------- what is left out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "failed"}, "failed"),
        ({"status": "interrupted"}, "interrupted"),
        ({"data": {"limit": 20}}, "--limit"),
        (
            {
                "backbone": {"weights": "random"},
                "metrics": {"IMG": {"value": None, "n": 9, "reason": "random weights"}},
            },
            "random weights",
        ),
        ({"model": "7b", "data": {"split_sizes": {"train": 50, "val": 50, "test": 50}}}, "official"),
    ],
)
def test_left_out_with_a_note(changes, reason):
    board = leaderboard([make("dehvf", **changes)], 1)
    assert all(cell.value is None for r in board.rows for cell in r.metrics.values())
    assert len(board.notes) == 1 and board.notes[0].startswith("1 run left out") and reason in board.notes[0]
    for format in ("markdown", "latex", "html"):
        assert "1 run left out" in render(board, format)


def test_a_set_that_is_not_the_official_one_is_named():
    official = make("dehvf", model="7b")
    assert leaderboard([official], 1, "7b").notes == ()
    assert leaderboard([official, make("dehvf")], 1).notes == (ON_MINI,)


def test_loaded_machine_left_out():
    board = leaderboard([speed("memvp", 0.2, 1.0, loaded=True)], 2, "7b")
    assert row(board, "memvp", model="7b").metrics["train"].value is None
    assert "loaded machine" in board.notes[0]


def test_configurations_are_not_averaged_and_the_newest_wins():
    old = [make(seed=s, value=10.0, config={"lr": 1.0}) for s in (0, 1)]
    new = [make(seed=s, value=60.0) for s in (0, 1)]
    board = leaderboard([*new, *old], 1, "tiny")
    assert row(board, "memvp").metrics["Avg"].value == 60
    assert board.notes == ("2 runs left out: an older configuration of memvp on tiny.", ON_MINI)


def test_rows_of_one_model_share_data_and_weights():
    rest = [make("dehvf", seed=s, value=70.0) for s in (0, 1)] + [make("memvp", value=60.0)]
    other_data = make("memvp", value=10.0, data={"name": "scienceqa150", "data_hash": "a" * 64})
    other_weights = make("lavin", value=10.0, backbone={"weight_hash": "b" * 64})
    board = leaderboard([*rest, other_data, other_weights], 1, "tiny")
    assert row(board, "memvp").metrics["Avg"].value == 60
    assert row(board, "lavin").metrics["Avg"].value is None
    assert sum("other data, weights or device" in note for note in board.notes) == 2


def test_the_same_seed_twice_counts_once():
    board = leaderboard([make(value=10.0), make(value=60.0)], 1, "tiny")
    assert row(board, "memvp").metrics["Avg"].value == 60 and row(board, "memvp").seeds == (0,)
    assert "same seed" in board.notes[0]


def test_dirty_code_skipped_images_and_cut_texts_are_noted():
    missing = {key: why for key, why in make().missing.items() if key != "truncated"}
    cut = {"truncated": {"train": 0, "eval": 1}, "missing": missing}
    dirty = make(git={"commit": "a" * 40, "dirty": True}, data={"skipped_images": 2}, **cut)
    notes = " ".join(leaderboard([dirty], 1, "tiny").notes)
    assert "commit" in notes and "skipped unreadable images" in notes and "1 run cut texts" in notes
    assert "cut" not in " ".join(leaderboard([make()], 1, "tiny").notes)
    assert row(leaderboard([dirty], 1, "tiny"), "memvp").metrics["Avg"].value == 50


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["memvp", "dehvf", "lavin"]),
            st.integers(0, 3),
            st.sampled_from([1.0, 2.0]),
            st.sampled_from(["completed", "failed"]),
            st.sampled_from([None, 5]),
        ),
        max_size=8,
    )
)
def test_every_record_is_shown_or_noted(drawn):
    records = [
        make(method, seed=seed, config={"lr": lr}, status=status, data={"limit": limit})
        for method, seed, lr, status, limit in drawn
    ]
    board = leaderboard(records, 1, "tiny")
    shown = sum(len(r.seeds) for r in board.rows)
    noted = sum(int(m.group(1)) for note in board.notes if (m := re.match(r"(\d+) runs? left out", note)))
    assert shown + noted == len(records)


def test_reporting_imports_no_torch():
    report = ("paper", "selection", "rows", "tables", "render", "readme")
    lines = ["import harness.records, harness.stats", *(f"import harness.report.{name}" for name in report)]
    lines += ["import sys", "assert 'torch' not in sys.modules"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, cwd=Path(__file__).resolve().parents[3])
