"""The diagnostics of a run, beside its record."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.errors import UserError
from harness.records import (
    DiagnosticMatrix,
    Diagnostics,
    diagnostics_path,
    read_diagnostics,
    read_records,
    record_path,
    write_diagnostics,
    write_record,
)
from tests.record_factory import make

LABELS: dict[str, Any] = {"row_labels": ["0", "1"], "column_labels": ["1", "2", "3"]}
TEXT = {"name": "figure3", "title": "weights", "about": "what they mean", "rows": "layer", "columns": "block"}
MEAN = [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]


def test_they_are_read_back_and_are_no_record(tmp_path: Path) -> None:
    record = make()
    path = write_record(record, tmp_path)
    assert read_diagnostics(path) is None
    matrix = DiagnosticMatrix(**TEXT, **LABELS, mean=MEAN, samples={"7": MEAN})
    kept = Diagnostics(spec_hash=record.spec_hash, images=9, matrices=[matrix])
    assert write_diagnostics(path, kept) == diagnostics_path(path)
    assert read_diagnostics(record_path(record, tmp_path)) == kept
    assert read_records(tmp_path) == [record]


@pytest.mark.parametrize("mean", [MEAN[:1], [[0.1], [0.2]], [[], []]])
def test_every_label_has_a_value(mean: list[list[float]]) -> None:
    with pytest.raises(ValidationError, match="one value for each row label and column label"):
        DiagnosticMatrix(**TEXT, **LABELS, mean=mean)
    with pytest.raises(ValidationError, match="7: must have one value"):
        DiagnosticMatrix(**TEXT, **LABELS, mean=MEAN, samples={"7": mean})


def test_those_of_another_run_are_refused(tmp_path: Path) -> None:
    path = write_record(make(), tmp_path)
    write_diagnostics(path, Diagnostics(spec_hash="f" * 16, images=1, matrices=[]))
    with pytest.raises(UserError, match=r"diagnostics\.json: spec_hash: it is that of the run f+; remove it"):
        read_diagnostics(path)


def test_a_faulty_file_is_named(tmp_path: Path) -> None:
    path = write_record(make(), tmp_path)
    diagnostics_path(path).write_text("[]")
    with pytest.raises(UserError, match=r"diagnostics\.json: diagnostics: .*; remove it"):
        read_diagnostics(path)
