"""Where methods disagree, from the predictions beside the records."""

import shutil
from pathlib import Path

from harness.page.answers import (
    Asked,
    agreement_rows,
    answered,
    asked,
    captioned,
    disagreement_figure,
    kept_questions,
)
from harness.page.inside import inside_figures
from harness.records import Question, read_diagnostics, read_records, record_path, write_diagnostics
from tests.harness.page.conftest import keep
from tests.record_factory import NINE, make


def test_methods_are_compared_on_the_problems_that_all_answered(results: Path) -> None:
    (group,) = answered(read_records(results), results)
    assert group.title == "scienceqa on tiny, protocol uniform, seed 0"
    assert {name: run.seed for name, run in group.runs.items()} == {"DEHVF": 0, "MemVP": 0}
    figure = disagreement_figure(0, group)
    assert figure.data[0]["z"] == [[0, 75], [75, 0]]
    assert figure.rows == (("MemVP", "0.0", "75.0"), ("DEHVF", "75.0", "0.0"))
    counted = ("4", "1 (25.0 %)", "0 (0.0 %)", "3 (75.0 %)")
    assert agreement_rows(group) == [(name, *counted) for name in ("all", *NINE) if name != "Avg"]


def test_kept_questions_stand_with_every_answer(results: Path) -> None:
    records = read_records(results)
    (group,) = answered(records, results)
    questions = kept_questions(records, results)
    agreed, disputed = asked(group, questions[group.runs["MemVP"].spec_hash])
    assert (agreed.disputed, disputed.disputed) == (False, True)
    assert disputed.chosen == [("yes", ["MemVP"]), ("no", ["DEHVF"])] and not disputed.unread


def test_an_answer_that_names_no_option_is_unread() -> None:
    question = Question(qid="0", question="?", options=["yes", "no"], gold=0, hint="", category="")
    assert Asked(question, {"one": 1, "none": None, "other": 2}, ["one"]).unread == ["none", "other"]


def test_diagnostics_are_drawn_with_their_samples(results: Path) -> None:
    records = read_records(results)
    (item,) = inside_figures(records, results, kept_questions(records, results))
    assert item.figure.title == "Weights: DEHVF, scienceqa on tiny, seed 0"
    assert item.figure.rows == (("0", "0.250", "0.750"), ("1", "0.500", "0.500"))
    assert item.figure.data[0]["z"] == [[0.25, 0.75], [0.5, 0.5]] and item.samples["1"] == [[None, 1.0], [1.0, None]]
    assert item.images["1"].endswith("/1.png")


def test_labels_are_no_tags_for_plotly(results: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(results, tmp_path / "results"))
    records = read_records(copied)
    shows = next(run for run in records if read_diagnostics(record_path(run, copied)) is not None)
    kept = read_diagnostics(record_path(shows, copied))
    assert kept is not None
    tag = '<a href="https://example.org">here</a>'
    matrix = kept.matrices[0].model_copy(update={"rows": tag, "columns": tag, "row_labels": [tag, "1"]})
    write_diagnostics(record_path(shows, copied), kept.model_copy(update={"matrices": [matrix]}))
    (item,) = inside_figures(records, copied, {})
    assert "<a" not in f"{item.figure.data} {item.figure.layout}"
    assert item.figure.rows[0][0] == tag  # the table is escaped where it is printed


def test_captions_of_one_image_stand_together(results: Path) -> None:
    (items,) = captioned(read_records(results)).values()
    assert [(item.image_id, item.references, list(item.captions)) for item in items] == [
        ("7", ("a teal square",), ["LaVIN"])
    ]


def test_a_row_that_stands_in_two_tables_answers_once(tmp_path: Path) -> None:
    for variant in (None, "no_visual_prompts"):
        keep(make("dehvf", variant=variant, value=100.0), tmp_path, [0, 0])
    (group,) = answered(read_records(tmp_path), tmp_path)
    assert list(group.runs) == ["DEHVF", "blind (DEHVF w/o visual prompts)"]


def test_only_methods_count_as_agreeing(tmp_path: Path) -> None:
    """Reference rows and ablations stand in the matrix and below the questions, but are no methods."""
    keep(make("dehvf", value=50.0), tmp_path, [0, 1])
    keep(make("memvp", value=50.0), tmp_path, [0, 1])
    for variant in ("no_visual_prompts", "keys_only"):
        keep(make("dehvf", variant=variant, value=0.0), tmp_path, [1, 1])
    keep(make("oracle", kind="oracle", value=100.0), tmp_path, [0, 0])
    (group,) = answered(read_records(tmp_path), tmp_path)
    assert len(group.runs) == 5 and group.methods == ("MemVP", "DEHVF")
    assert agreement_rows(group)[0] == ("all", "2", "1 (50.0 %)", "1 (50.0 %)", "0 (0.0 %)")
    question = Question(qid="1", question="?", options=["yes", "no"], gold=0)
    (one,) = asked(group, {"1": question})
    assert len(one.given) == 5 and not one.disputed


def test_without_a_seed_in_common_the_title_says_so(tmp_path: Path) -> None:
    keep(make("dehvf", seed=0, value=100.0), tmp_path, [0, 0])
    keep(make("memvp", seed=1, value=100.0), tmp_path, [0, 0])
    (group,) = answered(read_records(tmp_path), tmp_path)
    assert group.title.endswith(", the lowest seed of each")


def test_methods_answer_with_the_lowest_seed_that_all_have(tmp_path: Path) -> None:
    for method, seeds in (("dehvf", (0, 1, 2)), ("memvp", (1, 2))):
        for seed in seeds:
            keep(make(method, seed=seed, value=100.0), tmp_path, [0, 0])
    (group,) = answered(read_records(tmp_path), tmp_path)
    assert {run.seed for run in group.runs.values()} == {1} and group.title.endswith(", seed 1")


def test_of_several_seeds_the_diagnostics_of_the_lowest_are_drawn(results: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(results, tmp_path / "results"))
    records = read_records(copied)
    first, second = (run for run in records if (run.method, run.kind) == ("dehvf", "train"))
    kept = read_diagnostics(record_path(first, copied))
    assert kept is not None
    write_diagnostics(record_path(second, copied), kept.model_copy(update={"spec_hash": second.spec_hash}))
    assert [item.figure.title for item in inside_figures(records, copied, {})] == [
        "Weights: DEHVF, scienceqa on tiny, seed 0"
    ]
