"""Settings of all tests, for busy machines and for tensors as small as these."""

import gc
import importlib.util
import os
import signal
import threading
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import methods
from harness.stopping import SIGNALS

# With such tensors, several threads mostly wait for each other. torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes depends on what else the machine does, so no test fails for it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


# A signal that is ignored stays so in the commands that tests start and stop, as behind `nohup` or in the background of
# a script.
if threading.current_thread() is threading.main_thread():
    for _number in SIGNALS:
        if signal.getsignal(_number) == signal.SIG_IGN:
            signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose extra is not installed."""
    for mark in item.iter_markers("extra"):
        if importlib.util.find_spec(mark.kwargs["package"]) is None:
            pytest.skip(f"the extra `{mark.args[0]}` is not installed")


@pytest.fixture(scope="session", autouse=True)
def quick_collections() -> Iterator[None]:
    """Hide all that is imported and collected from the garbage collector.

    Every run collects garbage. Searching the objects of torch and of the tests would take most of its time.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()  # a library complains about objects that are left at the end


@pytest.fixture(scope="module", autouse=True)
def quick_collections_again(quick_collections: None) -> None:
    """Hide what the tests of earlier modules have imported or kept, too."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that pretends that packages with the given entry points are installed."""

    def pretend(**entries: str) -> None:
        found = [EntryPoint(name, value, methods.ENTRY_POINT_GROUP) for name, value in entries.items()]
        monkeypatch.setattr(methods, "entry_points", lambda group: found if group == methods.ENTRY_POINT_GROUP else [])
        methods.registry.cache_clear()

    yield pretend
    methods.registry.cache_clear()
