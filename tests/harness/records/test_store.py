"""Records on disk: where they are stored, what is read back, and how a bad file is reported."""

import json

import pytest

from harness.errors import UserError
from harness.records import (
    Record,
    find_record,
    predictions_path,
    read_records,
    record_path,
    spec_hash,
    write_predictions,
    write_record,
)
from tests.record_factory import fields


def test_a_record_is_stored_by_task_model_label_seed_and_hash(tmp_path):
    record = Record(**fields(variant="keys_only", method="dehvf", model="/models/My LLM", seed=3))
    path = write_record(record, tmp_path)
    assert path == record_path(record, tmp_path)
    folder = tmp_path / "records" / "scienceqa" / "models-My-LLM" / "dehvf-keys_only"
    assert path == folder / f"seed3-{record.spec_hash}.json"


def test_predictions_are_stored_beside_the_record_and_are_no_record(tmp_path):
    record = Record(**fields(variant="keys_only", method="dehvf", model="/models/My LLM", seed=3))
    path = write_record(record, tmp_path)
    rows = [{"qid": "1", "text": "ä"}, {"qid": "2", "text": "The answer is B."}]
    lines = write_predictions(path, rows)
    assert lines == predictions_path(path) and lines.parent == path.parent and lines.suffix == ".jsonl"
    assert [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()] == rows
    assert read_records(tmp_path) == [record]


@pytest.mark.parametrize("model", ["..", "../../up", "/", "a/../../b"])
def test_no_model_name_leaves_the_results_folder(tmp_path, model):
    path = record_path(Record(**fields(model=model)), tmp_path)
    assert path.resolve().is_relative_to(tmp_path / "records" / "scienceqa")


def test_writing_again_replaces(tmp_path):
    write_record(Record(**fields(status="failed", error="boom", missing={})), tmp_path)
    write_record(Record(**fields()), tmp_path)
    assert [record.status for record in read_records(tmp_path)] == ["completed"]
    assert not list(tmp_path.rglob(".*.json*"))


def test_find_record(tmp_path):
    record = Record(**fields())
    write_record(record, tmp_path)
    assert find_record(tmp_path, record.spec_hash) == record
    assert find_record(tmp_path, spec_hash({"other": 1})) is None


def test_no_folder_no_records(tmp_path):
    assert read_records(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda content: content | {"seed": "x"}, "seed"),
        (lambda content: content | {"extra": 1}, "extra"),
        (lambda content: content | {"schema_version": 99}, "schema_version"),
        (lambda content: content | {"config": {"lr": 2}}, "config_hash"),
        (lambda content: {k: v for k, v in content.items() if k != "method"}, "method"),
        (lambda content: [], "record"),
    ],
)
def test_a_bad_file_is_named_with_its_field(tmp_path, damage, named):
    path = write_record(Record(**fields()), tmp_path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(UserError) as caught:
        read_records(tmp_path)
    assert str(path) in str(caught.value) and named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_a_file_is_named(tmp_path):
    path = write_record(Record(**fields()), tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=path.name):
        read_records(tmp_path)


def test_a_copied_record_does_not_count_twice(tmp_path):
    path = write_record(Record(**fields()), tmp_path)
    copy = path.with_name("copy.json")
    copy.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="same run"):
        read_records(tmp_path)
