"""Picture questions by category, as results/README.md shows them."""

from hashlib import sha256

import pytest

from harness.data.mini.build import NAME, file_text, record, sample_items
from harness.errors import UserError
from harness.records import write_predictions, write_record
from harness.report.breakdown import MAPS, breakdown_text
from harness.report.readme import write_readme
from tests.record_factory import make

ITEMS = sample_items(0)
WORLD = sha256(file_text({item.qid: record(item) for item in ITEMS}).encode()).hexdigest()
DATA = {"name": NAME, "files": {"problems.json": WORLD}}


def save(results, right, shift=0, **changes):
    """A run on the small world that answers the questions of some categories and no others."""
    run = make(data=DATA, **changes)
    rows = [
        {
            "qid": item.qid,
            "choice": item.draft.answer if item.kind.category in right else None,
            "gold": item.draft.answer + shift,
        }
        for item in ITEMS
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
        save(tmp_path, {MAPS}, method="memvp", seed=0),
        save(tmp_path, {MAPS, "Materials"}, method="memvp", seed=1),
        save(tmp_path, {"Materials", "Captions", "Light and colour", "Figures"}, method="lavin"),
        make("dehvf", data={"name": "scienceqa"}),
    ]
    rows = cells(breakdown_text(runs, tmp_path))
    assert rows["MemVP"][MAPS] == "100.00 ± 0.00"
    assert rows["MemVP"]["Materials"] == "50.00 ± 70.71"
    assert (rows["LaVIN"][MAPS], rows["LaVIN"][f"IMG w/o {MAPS}"]) == ("0.00", "100.00")
    assert "DEHVF" not in rows
    assert breakdown_text(runs, tmp_path) in write_readme(tmp_path).read_text(encoding="utf-8")


def test_the_cells_are_those_of_the_runs_of_the_row(tmp_path):
    # Ablations have no row in this table, so their number says nothing about which weights it shows.
    runs = [save(tmp_path, {MAPS}, method="memvp", seed=seed) for seed in range(2)]
    other = {"weight_hash": "1" * 64}
    for seed in range(3):
        runs.append(save(tmp_path, set(), method="dehvf", variant="keys_only", seed=seed, backbone=other))
    runs.append(save(tmp_path, set(), method="memvp", backbone=other))
    (row,) = cells(breakdown_text(runs, tmp_path)).values()
    assert row[MAPS] == "100.00 ± 0.00"


def test_runs_without_saved_predictions_have_no_value(tmp_path):
    runs = [save(tmp_path, {MAPS}, seed=0), make("memvp", seed=1, data=DATA)]
    assert cells(breakdown_text(runs, tmp_path))["MemVP"][MAPS] == "n/a"
    for other in ({"name": "scienceqa"}, {"name": NAME, "files": {"problems.json": "0" * 64}}):
        assert breakdown_text([make("memvp", data=other)], tmp_path) == ""


def test_answers_that_could_not_be_read_are_noted(tmp_path):
    runs = [save(tmp_path, {MAPS}, seed=seed, parse_failures={"count": 20, "n": 1000}) for seed in (0, 1)]
    runs.append(save(tmp_path, {MAPS}, method="lavin"))
    text = breakdown_text(runs, tmp_path)
    unread = "Answers that could not be read: memvp 2.00 %; they count as wrong."
    assert text.endswith(f"\n\n- Over all questions, not only those of the table. {unread}\n")
    assert "could not be read" not in breakdown_text(runs[2:], tmp_path)


def test_predictions_of_another_world_are_refused(tmp_path):
    run = save(tmp_path, {MAPS}, shift=1)
    with pytest.raises(UserError, match="gold answer differs"):
        breakdown_text([run], tmp_path)


def test_predictions_that_are_not_all_there_are_refused(tmp_path):
    run = save(tmp_path, {MAPS})
    (path,) = tmp_path.rglob("*.predictions.jsonl")
    last = [item.qid for item in ITEMS if item.split == "test" and item.draft.scene][-1]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if f'"{last}"' not in line), encoding="utf-8")
    with pytest.raises(UserError, match=r"predictions.jsonl: no prediction for \d+; repeat the run"):
        breakdown_text([run], tmp_path)
