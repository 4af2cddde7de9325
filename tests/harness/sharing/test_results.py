"""A results folder becomes a data set that `datasets` reads, with the records beside its table."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.errors import UserError
from harness.records import Record, read_records, write_record
from harness.report.readme import record_guide
from harness.sharing.results import SPLIT, TABLE, records_table, results_upload
from tests import command_line
from tests.record_factory import make
from tests.standin_hub import Hub

call = partial(command_line.call, offline=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("ab.é"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab."), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for seed in (0, 1):
        write_record(make("memvp", seed, 50.0 + seed), folder)
    write_record(make("dehvf", 0, 60.0), folder)
    return folder


def test_results_go_to_the_hub_and_are_read_by_datasets(hub: Hub, results: Path, tmp_path: Path) -> None:
    done = call("results", "push", "--repo", "me/results", "--results", results)
    assert done.code == 0, done.err
    assert f"Uploaded to {hub.address}/datasets/me/results (" in done.out
    folder = hub.datasets["me/results"].folder
    assert read_records(folder) == read_records(results)
    table = datasets.load_dataset(str(folder), split=SPLIT, cache_dir=str(tmp_path / "datasets")).to_pandas()
    loaded = harness.load_records(results)
    for name in ("run_id", "seed", "metrics.Avg.value", "parameters.trainable"):
        assert list(table[name]) == list(loaded[name])
    assert sorted(table["path"]) == sorted(name for name in command_line.files(folder) if name.startswith("records/"))
    assert list(pd.to_datetime(table["created"])) == list(loaded["created"])


def test_the_card_says_what_the_columns_mean_and_where_to_find_them(results: Path) -> None:
    content = results_upload(results, "me/results").files["README.md"]
    assert isinstance(content, bytes)
    card = DatasetCard(content.decode())
    assert card.data.license == "apache-2.0"
    assert card.data.configs == [{"config_name": "default", "data_files": [{"split": SPLIT, "path": TABLE}]}]
    assert record_guide() in card.text
    assert 'load_dataset("me/results", split="records")' in card.text
    record = read_records(results)[0]
    assert str(record.environment.versions["torch"]) in card.text and record.data.name in card.text


def test_remarks_go_with_the_records(results: Path) -> None:
    assert "remarks.json" not in results_upload(results, "me/results").files
    remarks = {"remarks": [{"runs": [read_records(results)[0].spec_hash], "text": "The machine was throttled."}]}
    (results / "remarks.json").write_text(json.dumps(remarks))
    assert results_upload(results, "me/results").files["remarks.json"] == results / "remarks.json"


def test_remarks_that_are_withdrawn_leave_the_data_set(hub: Hub, results: Path) -> None:
    remarks = {"remarks": [{"runs": [read_records(results)[0].spec_hash], "text": "The machine was throttled."}]}
    (results / "remarks.json").write_text(json.dumps(remarks))
    for there in (True, False):
        assert call("results", "push", "--repo", "me/results", "--results", results).code == 0
        assert (hub.datasets["me/results"].folder / "remarks.json").exists() == there
        (results / "remarks.json").unlink(missing_ok=True)


def test_a_run_that_is_gone_leaves_the_data_set(hub: Hub, results: Path) -> None:
    assert call("results", "push", "--repo", "me/results", "--results", results).code == 0
    next(results.rglob("seed*.json")).unlink()
    assert call("results", "push", "--repo", "me/results", "--results", results).code == 0
    assert read_records(hub.datasets["me/results"].folder) == read_records(results)


def test_a_dry_run_uploads_nothing(hub: Hub, results: Path) -> None:
    done = call("results", "push", "--repo", "me/results", "--results", results, "--dry-run")
    assert done.code == 0 and f"- {TABLE} (" in done.out and "# Records of peft-vl-bench" in done.out
    assert hub.requests == []


def test_a_folder_without_records(hub: Hub, tmp_path: Path) -> None:
    done = call("results", "push", "--repo", "me/results", "--results", tmp_path)
    assert done.code == 2 and "has no records; give a results folder" in done.err
    with pytest.raises(UserError, match="--repo results: has no owner"):
        results_upload(tmp_path, "results")


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, "one"), ([1, 2], [1.5]), ([1, "a"], [2, "b"]), (True, 1), ({"a": 1}, 2), (None, [1]), ([], [1])],
)
def test_settings_of_any_type_have_a_column(first: Any, second: Any) -> None:
    table = table_of(first, second)
    assert len(table) == 2 and [name for name in table.columns if name.startswith("config.method.field")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (10**30, None),
        (10**400, 1.5),
        (-(10**30), 1),
        (2**63, -1),
        ([10**30], [1]),
        ([[1], ["a"]], None),
        ([[1]], [[2]]),
        ([None], [None]),
        ([{"a": 1}], [{"a": "b"}]),
        ([{}], None),
    ],
)
def test_settings_without_a_type_of_the_table_are_text_in_json(first: Any, second: Any) -> None:
    table = table_of(first, second)
    for value, cell in zip((first, second), table["config.method.field"], strict=True):
        assert pd.isna(cell) if value is None else json.loads(cell) == value


@settings(max_examples=30)
@given(first=JSON, second=JSON)
def test_no_setting_ends_with_an_error_of_a_library(first: Any, second: Any) -> None:
    assert len(table_of(first, second)) == 2


def table_of(*values: Any) -> pd.DataFrame:
    """Return the table of records that differ in the value of a setting, as it is read again."""
    records = [
        Record.model_validate(
            make("memvp", seed, 50.0).model_dump(exclude={"config", "config_hash"})
            | {"config": {"method": {"field": value}}}
        )
        for seed, value in enumerate(values)
    ]
    return pd.read_parquet(io.BytesIO(records_table(records)))
