"""Remarks on runs: printed below every table that shows one of them, and below no other."""

import json
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.records import write_record
from harness.report.tables import table_text
from tests.record_factory import make

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


@pytest.mark.parametrize("text", ["{", '{"remarks": [{"runs": [], "text": "x"}]}', '{"remarks": [{"runs": ["x"]}]}'])
def test_bad_remarks_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "remarks.json").write_text(text)
    with pytest.raises(UserError, match=r"remarks\.json: "):
        table_text(tmp_path, 1, "tiny", "markdown")
