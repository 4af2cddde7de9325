"""Where methods disagree, from the predictions beside the records."""

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.page.answers import agreement_rows, answered, captioned, disagreement_figure, read_answers
from harness.records import predictions_path, read_records, record_path
from harness.tasks.facts import TASKS
from tests.harness.page.conftest import keep
from tests.record_factory import make


def test_methods_are_compared_on_the_problems_that_all_answered(results: Path) -> None:
    (group,) = answered(read_records(results), results)
    assert group.title == "scienceqa on tiny, protocol uniform"
    assert {name: run.seed for name, run in group.runs.items()} == {"DEHVF": 0, "MemVP": 0}
    figure = disagreement_figure(0, group)
    assert figure.data[0]["z"] == [[0, 50], [50, 0]]
    assert figure.rows == (("DEHVF", "0.0", "50.0"), ("MemVP", "50.0", "0.0"))
    counted = ("4", "1 (25.0 %)", "1 (25.0 %)", "2 (50.0 %)")
    assert agreement_rows(group) == [("all", *counted), ("IMG", *counted), ("Avg", *counted)]


def test_captions_of_one_image_stand_together(results: Path) -> None:
    (items,) = captioned(read_records(results)).values()
    assert [(item.image_id, item.references, list(item.captions)) for item in items] == [
        ("7", ("a teal square",), ["LaVIN"])
    ]


def test_a_line_without_an_answer_is_named(tmp_path: Path) -> None:
    run = keep(make(), tmp_path, [0])
    path = predictions_path(record_path(run, tmp_path))
    path.write_text('{"qid": "1"}\n')
    keys = TASKS["scienceqa"].answers
    assert keys is not None
    with pytest.raises(UserError, match=r"predictions\.jsonl.*no 'qid', 'choice' and 'gold'"):
        read_answers(run, tmp_path, keys)
