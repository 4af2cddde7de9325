"""Remarks on runs: printed below every table that shows one of them, and below no other."""

import json
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.page.build import write_page
from harness.records import Record, read_remarks, write_record
from harness.report.against_paper import against_paper_text
from harness.report.compare import compare_text
from harness.report.tables import table_text
from tests.command_line import call
from tests.record_factory import make, speed

REMARK = "The machine was throttled."


def results_with(folder: Path, *runs: str) -> Path:
    """Write a remark on these runs into a results folder."""
    content = {"schema_version": 1, "remarks": [{"runs": runs, "text": REMARK}]}
    (folder / "remarks.json").write_text(json.dumps(content))
    return folder


def test_a_remark_stands_below_the_tables_with_its_runs(tmp_path: Path) -> None:
    run = make("memvp")
    write_record(run, tmp_path)
    results = results_with(tmp_path, run.spec_hash, "0" * 16)
    for format in ("markdown", "latex", "html"):
        assert REMARK in table_text(results, 1, "tiny", format)
    assert REMARK not in table_text(results, 3, "tiny", "markdown")
    assert REMARK not in table_text(results_with(tmp_path, "0" * 16), 1, "tiny", "markdown")


@pytest.mark.parametrize(
    ("run", "places"),
    [
        # the overview, Table 1, scores against parameters, the paper's values, and its record
        (make("memvp", model="7b"), 5),
        (speed("dehvf", 0.2, 0.1, variant="plain", label="dehvf-plain"), 2),  # its times and its record
    ],
)
def test_a_remark_stands_wherever_the_page_shows_its_run(tmp_path: Path, run: Record, places: int) -> None:
    write_record(run, tmp_path)
    results_with(tmp_path, run.spec_hash)
    text = write_page(tmp_path, tmp_path / "site").read_text(encoding="utf-8")
    assert text.count(REMARK) == places


def test_a_remark_stands_below_comparisons(tmp_path: Path) -> None:
    runs = [make("memvp", model="7b"), make("dehvf", model="7b"), make("memvp"), make("dehvf"), make("lavin")]
    for run in runs:
        write_record(run, tmp_path)
    results_with(tmp_path, runs[0].spec_hash)
    assert REMARK in against_paper_text(tmp_path, 1, "7b", "markdown")
    assert REMARK not in against_paper_text(tmp_path, 4, None, "markdown")
    assert REMARK in compare_text(tmp_path, "memvp", "dehvf", "7b", "scienceqa", "markdown")
    assert REMARK not in compare_text(tmp_path, "memvp", "dehvf", "tiny", "scienceqa", "markdown")


def test_remarks_follow_their_runs_into_another_folder(tmp_path: Path) -> None:
    ours, theirs, both = make("memvp"), make("dehvf"), make("lavin")
    for run, names in ((ours, ["a"]), (theirs, ["b"]), (both, ["a", "b"])):
        for name in names:
            write_record(run, tmp_path / name)
    other = make("memvp", spec_hash=ours.spec_hash)
    write_record(other, tmp_path / "b")
    results_with(tmp_path / "a", ours.spec_hash)
    results_with(tmp_path / "b", theirs.spec_hash, other.spec_hash, both.spec_hash)
    call("results", "merge", tmp_path / "b", "--results", tmp_path / "a")
    (remark,) = read_remarks(tmp_path / "a")
    assert sorted(remark.runs) == sorted([ours.spec_hash, theirs.spec_hash, both.spec_hash])
    (tmp_path / "a" / "remarks.json").unlink()
    call("results", "merge", tmp_path / "b", "--results", tmp_path / "a")
    (remark,) = read_remarks(tmp_path / "a")
    assert sorted(remark.runs) == sorted([theirs.spec_hash, both.spec_hash])


@pytest.mark.parametrize("text", ["{", '{"remarks": [{"runs": [], "text": "x"}]}', '{"remarks": [{"runs": ["x"]}]}'])
def test_bad_remarks_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "remarks.json").write_text(text)
    with pytest.raises(UserError, match=r"remarks\.json: "):
        table_text(tmp_path, 1, "tiny", "markdown")
