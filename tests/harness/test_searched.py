"""What was tried before a recipe was settled, as results/README.md shows it."""

from harness.readme import write_readme
from harness.recipes import method_config, train_recipe
from harness.records import write_record
from harness.searched import FOLDER, searched_text
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


def test_trials_stand_beside_what_the_recipe_took(tmp_path):
    assert searched_text(tmp_path) == ""
    settled = train_recipe("memvp", "tiny", "scienceqa").base_lr
    for method, value, changes in (
        ("memvp", 41.0, {"base_lr": settled}),
        ("memvp", 42.0, {"base_lr": settled * 2}),
        ("lavin", 43.0, {"base_lr": train_recipe("lavin", "tiny", "scienceqa").base_lr}),
    ):
        write_record(trial(method, value, **changes), tmp_path / FOLDER)
    head, body = rows(searched_text(tmp_path))
    # Methods differ in their sizes: only what one method was tried with twice is a column.
    assert head == ["Method", "base_lr", "Seed", "IMG", "Avg", "In the recipe"]
    assert {(row[0], row[4], row[5]) for row in body} == {
        ("MemVP", "41.0", "yes"),
        ("MemVP", "42.0", ""),
        ("LaVIN", "43.0", "yes"),
    }
    text = write_readme(tmp_path).read_text(encoding="utf-8")
    assert "What was searched" in text and "No completed run" in text


def test_a_failed_trial_is_left_out(tmp_path):
    write_record(make(status="failed"), tmp_path / FOLDER)
    assert searched_text(tmp_path) == ""
