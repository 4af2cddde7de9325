"""The record: round trip, what it refuses, where it lies, how a bad file is reported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.errors import UserError
from harness.records import (
    Record,
    collect_environment,
    collect_git,
    export_schema,
    find_record,
    predictions_path,
    read_records,
    record_path,
    spec_hash,
    write_predictions,
    write_record,
)

WHY = {
    key: "not measured in this test"
    for key in ("parse_failures", "truncated", "parameters", "times_s", "steps", "epochs", "loss", "peak_memory_bytes")
}


def fields(**changes) -> dict:
    base = {
        "spec_hash": spec_hash({"method": "memvp", "seed": 0}),
        "method": "memvp",
        "model": "tiny",
        "task": "scienceqa",
        "seed": 0,
        "config": {"recipe": {"lr": 1e-5, "betas": [0.9, 0.95]}},
        "data": {
            "name": "scienceqa-mini",
            "data_hash": "0" * 64,
            "files": {"problems.json": "1" * 64},
            "split_sizes": {"train": 3, "val": 2, "test": 2},
        },
        "backbone": {
            "llm": "tiny",
            "clip": "tiny",
            "weights": "shipped",
            "weight_hash": "2" * 64,
            "hidden_size": 128,
            "num_layers": 8,
            "vision_layers": 8,
            "dtype": "float32",
        },
        "metrics": {"IMG": {"value": 50.0, "n": 2, "stderr": 35.4}},
        "environment": collect_environment(threads=1),
        "git": {"commit": "a" * 40, "dirty": False},
        "missing": WHY,
    }
    return base | changes


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(st.text().filter(lambda key: key != "seed"), json_values, max_size=4)


@given(config=configs, seed=st.integers(0, 2**31))
def test_a_record_survives_its_own_json(config, seed):
    try:
        json.dumps(config, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return  # lone surrogates are no text
    record = Record(**fields(config=config, seed=seed))
    assert Record.model_validate_json(record.model_dump_json()) == record


@given(spec=configs)
def test_spec_hash_ignores_key_order_and_sees_every_change(spec):
    reordered = dict(reversed(list(spec.items())))
    try:
        assert spec_hash(reordered) == spec_hash(spec)
    except UnicodeEncodeError:
        return
    assert spec_hash(spec | {"seed": 1}) != spec_hash(spec | {"seed": 2})
    assert len(spec_hash(spec)) == 16


def test_spec_hash_is_fixed():
    # printf '{"a":"ä","b":[1,2.5,null]}' | sha256sum. Another value would orphan every record ever written.
    assert spec_hash({"b": [1, 2.5, None], "a": "ä"}) == "324d0f98e8e7b390"


def test_spec_hash_refuses_nan():
    with pytest.raises(ValueError):
        spec_hash({"lr": float("nan")})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"colour": "red"}, "colour"),
        ({"missing": {}}, "parse_failures: is null"),
        ({"missing": WHY | {"method": "?"}}, "missing.method"),
        ({"missing": WHY | {"nowhere": "?"}}, "missing.nowhere"),
        ({"config": {"seed": 1}}, "config: holds `seed`"),
        ({"config_hash": "0" * 16}, "config_hash"),
        ({"run_id": "other"}, "run_id"),
        ({"status": "failed"}, "error: "),
        ({"error": "boom"}, "error: "),
        ({"failed_step": 3}, "failed_step"),
        ({"metrics": {"IMG": {"value": None, "n": 0}}}, "reason"),
        ({"metrics": {"IMG": {"value": float("nan"), "n": 1, "stderr": 0}}}, "finite"),
        ({"git": {"commit": None, "dirty": None}}, "reason"),
        ({"kind": "oracle"}, "missing.parameters"),
        ({"kind": "oracle", "steps": 3}, "steps: not measured"),
        ({"label": "../up"}, "label"),
        ({"task": "a/b"}, "task"),
        ({"seed": "zero"}, "seed"),
    ],
)
def test_refused(changes, named):
    with pytest.raises(ValidationError, match="(?s)" + named.replace(".", r"\.")):
        Record(**fields(**changes))


def test_random_weights_carry_no_accuracy():
    backbone = fields()["backbone"] | {"weights": "random"}
    with pytest.raises(ValidationError, match=r"metrics\.IMG"):
        Record(**fields(backbone=backbone))
    null = {"IMG": {"value": None, "n": 2, "reason": "random weights"}}
    assert Record(**fields(backbone=backbone, metrics=null)).metrics["IMG"].value is None


def test_a_failed_run_needs_no_reason_beyond_its_error():
    record = Record(**fields(status="failed", error="loss is NaN", failed_step=7, missing={}, metrics={}))
    assert record.failed_step == 7


def test_a_reason_covers_what_lies_below_it():
    part = {key: value for key, value in WHY.items() if key != "times_s"}
    with pytest.raises(ValidationError, match=r"times_s\.load"):
        Record(**fields(missing=part | {"times_s.data": "?"}))


def test_path_label_and_predictions(tmp_path):
    record = Record(**fields(variant="keys_only", method="dehvf", model="/models/My LLM", seed=3))
    path = write_record(record, tmp_path)
    assert path == record_path(record, tmp_path)
    folder = tmp_path / "records" / "scienceqa" / "models-My-LLM" / "dehvf-keys_only"
    assert path == folder / f"seed3-{record.spec_hash}.json"
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


def test_every_field_is_described_in_the_schema(tmp_path):
    export_schema(tmp_path / "schema.json")
    schema = json.loads((tmp_path / "schema.json").read_text())
    assert schema["additionalProperties"] is False
    for part in [schema, *schema["$defs"].values()]:
        for name, field in part.get("properties", {}).items():
            assert field.get("description"), name


def test_git_of_a_folder_that_is_no_checkout(tmp_path):
    git = collect_git(tmp_path)
    assert git.commit is None and git.dirty is None and git.reason


def test_git_sees_changed_code_and_not_changed_results(tmp_path):
    def run(*arguments: str) -> None:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    (tmp_path / "harness").mkdir()
    code = tmp_path / "harness" / "a.py"
    code.write_text("1\n")
    run("init", "-q")
    run("add", ".")
    run("commit", "-q", "-m", "x")
    (tmp_path / "results.json").write_text("{}")
    clean = collect_git(tmp_path)
    assert clean.commit and clean.dirty is False
    code.write_text("2\n")
    assert collect_git(tmp_path).dirty is True


def test_reporting_imports_no_torch():
    report = ("paper", "selection", "rows", "tables", "render", "readme")
    lines = ["import harness.records, harness.stats", *(f"import harness.report.{name}" for name in report)]
    lines += ["import sys", "assert 'torch' not in sys.modules"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, cwd=Path(__file__).resolve().parents[3])
