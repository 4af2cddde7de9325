"""Picture questions by category, as results/README.md shows them."""

import pytest

from harness.breakdown import UNTOLD, breakdown_text
from harness.data.mini.build import NAME, sample_items
from harness.errors import UserError
from harness.readme import write_readme
from harness.records import write_predictions, write_record
from tests.record_factory import make


def save(results, right, shift=0, **changes):
    """A run on the small world that answers the questions of some categories and no others."""
    run = make(data={"name": NAME}, **changes)
    rows = [
        {
            "qid": item.qid,
            "choice": item.draft.answer if item.kind.category in right else None,
            "gold": item.draft.answer + shift,
        }
        for item in sample_items(0)
        if item.split == "test"
    ]
    write_predictions(write_record(run, results), rows)
    return run


def cells(text):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    heads = [head.rpartition(" (")[0] for head in lines[0]]
    return {line[0]: dict(zip(heads, line, strict=True)) for line in lines[2:]}


def test_each_category_is_scored_by_itself(tmp_path):
    runs = [
        save(tmp_path, {UNTOLD}, method="memvp", seed=0),
        save(tmp_path, {UNTOLD, "Materials"}, method="memvp", seed=1),
        save(tmp_path, {"Materials", "Captions", "Light and colour", "Figures"}, method="lavin"),
        make("dehvf", data={"name": "scienceqa"}),
    ]
    rows = cells(breakdown_text(runs, tmp_path))
    assert rows["MemVP"][UNTOLD] == "100.00 ± 0.00"
    assert rows["MemVP"]["Materials"] == "50.00 ± 70.71"
    assert (rows["LaVIN"][UNTOLD], rows["LaVIN"][f"IMG w/o {UNTOLD}"]) == ("0.00", "100.00")
    assert "DEHVF" not in rows
    assert breakdown_text(runs, tmp_path) in write_readme(tmp_path).read_text(encoding="utf-8")


def test_runs_without_saved_predictions_have_no_value(tmp_path):
    runs = [save(tmp_path, {UNTOLD}, seed=0), make("memvp", seed=1, data={"name": NAME})]
    assert cells(breakdown_text(runs, tmp_path))["MemVP"][UNTOLD] == "n/a"
    assert breakdown_text([make("memvp", data={"name": "scienceqa"})], tmp_path) == ""


def test_predictions_of_another_world_are_refused(tmp_path):
    run = save(tmp_path, {UNTOLD}, shift=1)
    with pytest.raises(UserError, match="gold answer differs"):
        breakdown_text([run], tmp_path)
