"""Records on disk: where they are stored, what is read back, and how a bad file is reported."""

import json
import os

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


def test_a_record_is_found_by_what_it_says_not_by_its_name(tmp_path):
    record = Record(**fields())
    path = write_record(record, tmp_path)
    path.rename(path.with_name("renamed.json"))
    assert find_record(tmp_path, record.spec_hash) == record


def test_a_record_with_the_name_of_another_run_is_not_that_run(tmp_path):
    path = write_record(Record(**fields()), tmp_path)
    other = spec_hash({"other": 1})
    path.rename(path.with_name(f"seed0-{other}.json"))
    with pytest.raises(UserError, match=r"is the record of scienceqa-tiny-memvp.*give the file another name"):
        find_record(tmp_path, other)


def test_records_in_linked_folders_are_found_once(tmp_path):
    record = Record(**fields())
    write_record(record, tmp_path / "elsewhere")
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "scienceqa").symlink_to(tmp_path / "elsewhere" / "records" / "scienceqa")
    (tmp_path / "records" / "again").symlink_to(tmp_path / "records")
    assert read_records(tmp_path) == [record]
    assert find_record(tmp_path, record.spec_hash) == record


def test_a_record_of_a_later_version_is_passed_over_and_never_replaced(tmp_path, capsys):
    record = Record(**fields())
    path = write_record(record, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2, "new": {}}, indent=1))
    for _ in range(2):
        assert read_records(tmp_path) == []
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said and "has version 2" in said
    with pytest.raises(UserError, match="has version 2 of the format of records; update peft-vl-bench"):
        find_record(tmp_path, record.spec_hash)


@pytest.mark.parametrize("number", ["Infinity", "1e999", "NaN"])
def test_a_record_with_an_infinite_number_in_its_config_is_passed_over_and_never_replaced(tmp_path, capsys, number):
    record = Record(**fields())
    path = write_record(record, tmp_path)
    path.write_text(path.read_text().replace('"config": {', f'"config": {{"odd": {number},'))
    for _ in range(2):
        assert read_records(tmp_path) == []
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said and "passed over" in said
    with pytest.raises(UserError, match="config: cannot be written as JSON"):
        find_record(tmp_path, record.spec_hash)


def test_a_pipe_among_the_records_is_refused(tmp_path):
    path = write_record(Record(**fields()), tmp_path)
    os.mkfifo(path.with_name("pipe.json"))
    with pytest.raises(UserError, match="not a regular file"):
        read_records(tmp_path)


def test_text_from_outside_is_written_without_control_characters(tmp_path):
    odd = "boom\x1b[31m\n\udce9"
    record = Record(**fields(status="failed", error=odd, tuning=odd, missing={}))
    write_record(record, tmp_path)
    (found,) = read_records(tmp_path)
    assert found.error == found.tuning == "boom\\x1b[31m\\n\\udce9"


def test_no_folder_no_records(tmp_path):
    assert read_records(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda content: content | {"seed": "x"}, "seed"),
        (lambda content: content | {"extra": 1}, "extra"),
        (lambda content: content | {"model": "tiny\x1b[31m"}, "control characters"),
        (lambda content: content | {"tuning": "two\nlines"}, "control characters"),
        (lambda content: content | {"config": {"lr": 2}}, "config_hash"),
        (lambda content: content | {"config": {"train": {"tuning": "\u202e"}}}, "config: contains control characters"),
        (lambda content: content | {"config": {"method": [{"two\nlines": 1}]}}, "config: contains control characters"),
        (lambda content: content | {"task": "x" * 101}, "task: "),
        (lambda content: content | {"variant": "x" * 101}, "variant: "),
        (lambda content: content | {"label": "x" * 202}, "label: "),
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


def test_a_folder_in_place_of_a_record_is_named(tmp_path):
    path = write_record(Record(**fields()), tmp_path)
    path.with_name("seed1-0123456789abcdef.json").mkdir()
    with pytest.raises(UserError, match="is a folder with the name of a record"):
        read_records(tmp_path)


def test_two_runs_of_one_spec_hash_are_refused(tmp_path):
    paths = [write_record(Record(**fields(seed=seed)), tmp_path) for seed in (0, 1)]
    with pytest.raises(UserError, match=r"spec_hash: is that of .*; remove the record that was changed") as error:
        read_records(tmp_path)
    assert all(str(path) in str(error.value) for path in paths)


def test_a_copied_record_does_not_count_twice(tmp_path):
    path = write_record(Record(**fields()), tmp_path)
    copy = path.with_name("copy.json")
    copy.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="same run"):
        read_records(tmp_path)
