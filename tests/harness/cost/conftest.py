"""Fixtures of the tests of costs: one speed measurement for all of them."""

import pytest

from harness.cost.plan import SpeedPlan
from harness.cost.speed import Measurement, measure
from harness.cost.speed_report import make_records
from harness.records import Record
from tests.harness.cost.small_speed import plan, with_load


@pytest.fixture(scope="session")
def measured() -> tuple[SpeedPlan, Measurement]:
    """A measurement of all methods, with what was asked for."""
    made = plan()
    return made, measure(made)


@pytest.fixture(scope="session")
def records(measured: tuple[SpeedPlan, Measurement]) -> list[Record]:
    """The records of the measurement."""
    return make_records(*measured)


@pytest.fixture(scope="session")
def quiet(records: list[Record]) -> list[Record]:
    """The same records, as of a machine that was not busy."""
    return with_load(records, False)
