"""The searches for recipes, as results/README.md shows them."""

from harness.config.recipes import method_config, train_recipe
from harness.records import write_record
from harness.report.readme import write_readme
from harness.report.searched import FOLDER, THE_RECIPE, searched_text
from methods import get_method
from tests.record_factory import make


def trial(method, value, **changes):
    config = get_method(method).Config(**method_config(method, "tiny")).model_dump(mode="json")
    recipe = train_recipe(method, "tiny", "scienceqa").model_dump(mode="json") | {"eval_split": "val", **changes}
    return make(method, value=value, config={"method": config, "train": recipe})


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return head, body


def test_without_a_search_there_is_no_text(tmp_path):
    assert searched_text(tmp_path) == ""


def test_trials_stand_beside_what_the_recipe_took(tmp_path):
    for method, value, changes in (
        ("memvp", 42.0, {"base_lr": 1.5}),
        ("memvp", 43.0, {"base_lr": 12.0, "epochs": 3}),
        ("memvp", 41.0, {}),
        ("lavin", 44.0, {"prompt_format": "CQM-A"}),
        ("lavin", 45.0, {"max_grad_norm": 1.0}),
    ):
        write_record(trial(method, value, **changes), tmp_path / FOLDER)
    head, body = rows(searched_text(tmp_path))
    assert head == ["Method", "Tried, else as the recipe", "Seed", "IMG", "Avg"]
    assert [(row[0], row[1], row[4].split()[0]) for row in body] == [
        ("LaVIN", "max_grad_norm 1.0", "45.0"),
        ("LaVIN", "prompt_format CQM-A", "44.0"),
        ("MemVP", THE_RECIPE, "41.0"),
        ("MemVP", "base_lr 1.5", "42.0"),
        ("MemVP", "base_lr 12.0, epochs 3", "43.0"),
    ]


def test_the_length_of_shorter_trials_is_said_once(tmp_path):
    short = {"epochs": 1.0, "warmup_epochs": 0.1}
    twice = {"epochs": 2.0, "warmup_epochs": 0.2}
    for changes in (short, {**short, "base_lr": 1.5}, {**short, "base_lr": 2.5}, twice):
        write_record(trial("memvp", 41.0, **changes), tmp_path / FOLDER)
    text = searched_text(tmp_path)
    now = train_recipe("memvp", "tiny", "scienceqa").epochs
    assert f"train for 1 epochs where the table says nothing else, and the recipe trains for {now:g}." in text
    assert [row[1] for row in rows(text)[1]] == [
        THE_RECIPE,
        "base_lr 1.5",
        "base_lr 2.5",
        "epochs 2.0, warmup_epochs 0.2",
    ]


def test_a_search_is_a_section_of_the_results_page(tmp_path):
    write_record(trial("memvp", 41.0), tmp_path / FOLDER)
    text = write_readme(tmp_path).read_text(encoding="utf-8")
    assert "What was searched" in text and "No completed run" in text


def test_a_model_without_a_recipe_of_its_own_shows_what_its_trials_differ_in(tmp_path):
    for rate in (0.1, 0.2):
        record = trial("memvp", 40.0, base_lr=rate)
        other = make("memvp", value=40.0, config=record.config, model="some-llm")
        write_record(other, tmp_path / FOLDER)
    _, body = rows(searched_text(tmp_path))
    assert [row[1] for row in body] == ["base_lr 0.1", "base_lr 0.2"]


def test_a_length_that_is_no_number_is_no_length(tmp_path):
    for epochs in (None, [], {}, "x", True, 10**400):
        write_record(trial("memvp", 40.0, epochs=epochs), tmp_path / FOLDER)
    assert "train for" not in searched_text(tmp_path)


def test_a_failed_trial_is_left_out(tmp_path):
    write_record(make(status="failed"), tmp_path / FOLDER)
    assert searched_text(tmp_path) == ""
