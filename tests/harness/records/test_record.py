"""The record: it survives a round trip through JSON, its hash is fixed, and it rejects contradictory fields."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.escape import visible
from harness.records import Record, spec_hash
from tests.record_factory import WHY, fields

plain = st.text().filter(lambda text: visible(text) == text)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(plain.filter(lambda key: key != "seed"), json_values, max_size=4)


@given(config=configs, seed=st.integers(0, 2**31))
def test_a_record_survives_its_own_json(config, seed):
    try:
        json.dumps(config, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return  # lone surrogates cannot be written as UTF-8
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
    # printf '{"a":"ä","b":[1,2.5,null]}' | sha256sum. With any other hash, no existing record would be found.
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
        ({"config": {"seed": 1}}, "config: contains `seed`"),
        ({"config_hash": "0" * 16}, "config_hash"),
        ({"run_id": "other"}, "run_id"),
        ({"status": "failed"}, "error: "),
        ({"error": "boom"}, "error: "),
        ({"failed_step": 3}, "failed_step"),
        ({"metrics": {"IMG": {"value": None, "n": 0}}}, "reason"),
        ({"metrics": {"IMG": {"value": float("nan"), "n": 1, "stderr": 0}}}, "finite"),
        ({"git": {"commit": None, "dirty": None}}, "reason"),
        ({"kind": "oracle"}, "missing.parameters"),
        ({"kind": "oracle", "steps": 3}, "steps: must be null"),
        ({"label": "../up"}, "label"),
        ({"task": "a/b"}, "task"),
        ({"seed": "zero"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": 10**30}, "seed"),
        ({"micro_batch": 2**63}, "micro_batch"),
        ({"micro_batch": 0}, "micro_batch"),
        ({"metrics": {"IMG": {"value": 1e300, "n": 1, "stderr": 0}}}, "metrics.IMG.value"),
        ({"metrics": {"IMG": {"value": 1, "n": 1, "stderr": 1e300}}}, "metrics.IMG.stderr"),
        ({"times_s": {"train": 1e300}}, "times_s.train"),
        ({"loss": {"first": 1, "last": -1e300}}, "loss.last"),
        ({"created": "0001-01-01T00:00:00+14:00"}, "created"),
        ({"created": "9999-12-31T23:59:59-14:00"}, "created"),
    ],
)
def test_refused(changes, named):
    with pytest.raises(ValidationError, match="(?s)" + named.replace(".", r"\.")):
        Record(**fields(**changes))


def test_the_loss_of_a_training_that_diverges_can_be_recorded():
    most = float(np.finfo(np.float32).max)
    missing = {name: why for name, why in WHY.items() if name != "loss"}
    assert Record(**fields(loss={"first": 1.0, "last": most}, missing=missing)).loss.last == most


def test_the_time_of_a_record_is_in_utc():
    created = Record(**fields(created="2026-01-01T00:30:00+02:00")).created
    assert created == datetime(2025, 12, 31, 22, 30, tzinfo=UTC) and f"{created:%d %H:%M}" == "31 22:30"


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
