"""Which records enter a table, and what is noted about the others."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.recipes import train_recipe
from harness.report.render import render
from harness.report.tables import leaderboard
from tests.harness.report.boards import ON_MINI, row
from tests.record_factory import WHY, make, speed


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
    assert sum("other data, weights, dtype, prompts or device" in note for note in board.notes) == 2


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {"settings_hash": "c" * 64}])
def test_rows_of_one_model_share_dtype_and_settings(changes):
    rest = [make("dehvf", seed=s, value=70.0) for s in (0, 1)] + [make("memvp", value=60.0)]
    board = leaderboard([*rest, make("memvp", seed=1, value=10.0, backbone=changes)], 1, "tiny")
    assert row(board, "memvp").seeds == (0,)
    assert sum("other data, weights, dtype, prompts or device" in note for note in board.notes) == 1


def test_rows_of_one_model_are_trained_equally_long():
    six = [make(method, seed=s, value=60.0, **train(epochs=6)) for method in ("dehvf", "lavin") for s in range(3)]
    longer = [make("memvp", seed=s, value=90.0, **train(epochs=60)) for s in range(3)]
    smoke = make("dehvf", value=5.0, **train(epochs=0.018))  # the newest run of its row
    oracle = make("oracle", kind="oracle", value=95.0, **train(epochs=5))
    board = leaderboard([*six, *longer, oracle, smoke], 1, "tiny")
    assert row(board, "dehvf").seeds == (0, 1, 2) and row(board, "dehvf").metrics["Avg"].value == 60
    assert row(board, "memvp").metrics["Avg"].value is None
    assert row(board, "oracle").metrics["Avg"].value == 95
    left_out = [note for note in board.notes if "another number of epochs than the other rows of tiny" in note]
    assert left_out == ["4 runs left out: another number of epochs than the other rows of tiny (scienceqa-mini)."]
    # A run that is as long as the recipe says is shown, however many short ones there are.
    recipe = train_recipe("memvp", "tiny", "scienceqa")
    short = [make(method, seed=s, value=5.0, **train(epochs=0.018)) for method in ("dehvf", "lavin") for s in range(3)]
    board = leaderboard([*short, make("memvp", value=60.0, **train(epochs=recipe.epochs))], 1, "tiny")
    assert row(board, "memvp").seeds == (0,) and row(board, "dehvf").seeds == ()


def test_a_quantised_model_is_as_long_as_its_preset():
    quantised = {"model": "tiny-4bit", "backbone": {"quantize": "4bit"}}
    epochs = train_recipe("memvp", "tiny", "scienceqa").epochs
    runs = [make(value=value, **quantised, **train(epochs=n)) for value, n in ((60.0, epochs), (9.0, 1), (8.0, 1))]
    board = leaderboard(runs, 1, "tiny-4bit")
    assert row(board, "memvp", model="tiny-4bit").metrics["Avg"].value == 60


def test_the_same_seed_twice_counts_once():
    board = leaderboard([make(value=10.0), make(value=60.0)], 1, "tiny")
    assert row(board, "memvp").metrics["Avg"].value == 60 and row(board, "memvp").seeds == (0,)
    assert "same seed" in board.notes[0]


def test_dirty_code_skipped_images_and_cut_texts_are_noted_and_not_left_out():
    missing = {key: why for key, why in make().missing.items() if key != "truncated"}
    cut = {"truncated": {"train": 0, "eval": 1}, "missing": missing}
    dirty = make(git={"commit": "a" * 40, "dirty": True}, data={"skipped_images": 2}, **cut)
    board = leaderboard([dirty], 1, "tiny")
    notes = " ".join(board.notes)
    assert "commit" in notes and "skipped unreadable images" in notes and "1 run cut texts" in notes
    assert row(board, "memvp").metrics["Avg"].value == 50


def test_a_run_that_cut_nothing_has_no_note_on_it():
    assert "cut" not in " ".join(leaderboard([make()], 1, "tiny").notes)


@settings(max_examples=30)
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


def train(**changes):
    """Return the config of a run with these settings."""
    return {"config": {"train": {"protocol": "uniform", "scoring": "letter", **changes}}}


def test_protocols_never_share_a_table():
    records = [make("memvp", value=60.0, **train()), make("dehvf", value=70.0, **train(protocol="published"))]
    for protocol, method, value in (("uniform", "memvp", 60), ("published", "dehvf", 70)):
        board = leaderboard(records, 1, "tiny", protocol)
        assert {r.method: r.metrics["Avg"].value for r in board.rows if r.seeds} == {method: value}
        other = "published" if protocol == "uniform" else "uniform"
        assert f"1 run left out: of the {other} protocol, which --protocol {other} shows." in board.notes


def test_rows_of_the_uniform_protocol_are_asked_the_same():
    same = [make(method, value=60.0, **train()) for method in ("memvp", "lavin")]
    other = make("dehvf", value=70.0, **train(scoring="generate"))
    board = leaderboard([*same, other], 1, "tiny")
    assert row(board, "dehvf").metrics["Avg"].value is None and row(board, "lavin").metrics["Avg"].value == 60
    assert any("other data, weights, dtype, prompts or device" in note for note in board.notes)
    # Under the published one, each method is asked in its own way.
    own = [make("memvp", **train(protocol="published")), make("lavin", **train(protocol="published", scoring="x"))]
    board = leaderboard(own, 1, "tiny", "published")
    assert all(row(board, method).seeds == (0,) for method in ("memvp", "lavin"))


def test_unreadable_answers_are_noted_where_there_are_any():
    def read(method, seed, count):
        missing = {key: why for key, why in WHY.items() if key not in ("parse_failures", "parameters")}
        return make(method, seed, parse_failures={"count": count, "n": 200}, missing=missing)

    board = leaderboard([read("memvp", 0, 3), read("memvp", 1, 0), read("lavin", 0, 0)], 1, "tiny")
    assert "Answers that could not be read: memvp 0.75 %; they count as wrong." in board.notes
    assert not any("could not be read" in note for note in leaderboard([read("lavin", 0, 0)], 1, "tiny").notes)


def test_a_share_that_rounds_to_nothing_is_said_to_be_smaller():
    board = leaderboard([make(parse_failures={"count": 1, "n": 100_000})], 1)
    assert "Answers that could not be read: memvp < 0.01 %; they count as wrong." in board.notes
