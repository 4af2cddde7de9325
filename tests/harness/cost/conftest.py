"""Fixtures of the tests of costs: one speed measurement for all of them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.cost.plan import SpeedPlan
from harness.cost.speed import Measurement, measure
from harness.cost.speed_report import make_records
from harness.records import Record
from tests.harness.cost.small_speed import plan


@contextmanager
def _quick_collections() -> Iterator[None]:
    # A measurement collects garbage before every step whose memory it measures. Searching the objects of torch and of
    # the tests would take most of its time, so they are hidden from the collector.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@pytest.fixture(scope="module")
def quick_collections() -> Iterator[None]:
    """Make the garbage collections of measurements quick, for the tests of one module."""
    with _quick_collections():
        yield


@pytest.fixture(scope="session")
def measured() -> tuple[SpeedPlan, Measurement]:
    """A measurement of all methods, with what was asked for."""
    made = plan()
    with _quick_collections():
        return made, measure(made)


@pytest.fixture(scope="session")
def records(measured: tuple[SpeedPlan, Measurement]) -> list[Record]:
    """The records of the measurement."""
    return make_records(*measured)
