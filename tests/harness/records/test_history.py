"""The history of a run: how steps become points, and how it is kept beside the record."""

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.records import (
    Record,
    StepMeasured,
    Validation,
    history_path,
    make_history,
    read_history,
    read_records,
    record_path,
    write_history,
    write_record,
)
from tests.record_factory import fields

HASH = "0123456789abcdef"
POINT = {"step": 1, "loss": 1.0, "learning_rate": 0.1}
losses = st.floats(0, 1e4)


def steps_of(values: list[float]) -> list[StepMeasured]:
    return [StepMeasured(i, loss, 1e-3 * i, 4, 0.5, 100 + i) for i, loss in enumerate(values, start=1)]


@given(st.lists(losses, max_size=500))
def test_a_short_run_keeps_every_step(values: list[float]) -> None:
    history = make_history(HASH, steps_of(values))
    assert [(p.step, p.loss) for p in history.points] == list(enumerate(values, start=1))


@given(st.integers(501, 3000), st.integers(0, 99))
def test_a_long_run_is_thinned_out_and_keeps_its_ends_and_its_mean(count: int, seed: int) -> None:
    numbers = random.Random(seed)
    values = [numbers.uniform(0, 10) for _ in range(count)]
    history = make_history(HASH, steps_of(values))
    points = history.points
    assert len(points) == 500 and history.steps == count == points[-1].step and points[0].step == 1
    assert (points[0].loss, points[-1].loss) == (values[0], values[-1])
    widths = [after.step - before.step for before, after in pairwise(points)]
    assert widths[-1] == 1 and max(widths[:-1]) - min(widths[:-1]) <= 1
    total = points[0].loss + sum(width * point.loss for width, point in zip(widths, points[1:], strict=True))
    assert total == pytest.approx(sum(values))


def test_a_point_sums_up_its_steps() -> None:
    steps = [StepMeasured(i + 1, loss=float(i % 2), learning_rate=2.0, samples=4, seconds=2.0) for i in range(10_000)]
    steps[5000] = StepMeasured(5001, 0.0, 2.0, 4, 2.0, memory_bytes=7)
    middle = make_history(HASH, steps).points[200]
    assert middle.loss == pytest.approx(0.5, abs=0.03) and middle.learning_rate == 2.0 and middle.samples_per_s == 2.0
    assert {point.memory_bytes for point in make_history(HASH, steps).points} == {None, 7}


def test_the_wait_for_a_batch_counts_in_the_samples_per_second() -> None:
    steps = [StepMeasured(step, 1.0, 1e-3, samples=4, seconds=0.5, waited_s=1.5) for step in (1, 2)]
    assert [point.samples_per_s for point in make_history(HASH, steps).points] == [2.0, 2.0]


def test_it_is_read_back_and_is_no_record(tmp_path) -> None:
    record = Record(**fields())
    path = write_record(record, tmp_path)
    assert read_history(path) is None
    history = make_history(record.spec_hash, steps_of([3.0, 2.0]), [Validation(step=2, accuracy=50.0, n=8)])
    assert write_history(path, history) == history_path(path)
    assert read_history(path) == history
    assert read_records(tmp_path) == [record]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("not json", "Invalid JSON"),
        (json.dumps({"schema_version": 9, "spec_hash": HASH, "steps": 0, "points": []}), "schema_version"),
        (json.dumps({"spec_hash": HASH, "steps": 3, "points": []}), "points"),
        (json.dumps({"spec_hash": HASH, "steps": 0, "points": []}), "spec_hash"),
        (json.dumps({"spec_hash": HASH, "steps": 1, "points": [{**POINT, "loss": 1e300}]}), "points.0.loss"),
        (json.dumps({"spec_hash": HASH, "steps": 1, "points": [{**POINT, "learning_rate": 1e300}]}), "points.0.learn"),
        (json.dumps({"spec_hash": HASH, "steps": 0, "points": [{**POINT, "step": 0}]}), "points.0.step"),
    ],
)
def test_a_damaged_one_is_named_and_does_not_disturb_the_records(tmp_path, content: str, named: str) -> None:
    record = Record(**fields())
    path = write_record(record, tmp_path)
    history_path(path).write_text(content)
    with pytest.raises(UserError) as caught:
        read_history(path)
    assert str(history_path(path)) in str(caught.value) and f": {named}" in str(caught.value)
    assert read_records(tmp_path) == [record]


def test_one_without_its_record_does_not_disturb(tmp_path) -> None:
    write_history(record_path(Record(**fields()), tmp_path), make_history(HASH, steps_of([1.0])))
    assert read_records(tmp_path) == []
